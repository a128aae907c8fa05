"""A rolling upgrade: processes of two releases serve side by side, the schema changes under them, no request fails.

The older release is the newest tag before the present commit. Without a tag, the newer one is made: the present code
with further migrations, among them one that the composer derives.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from support.environment import TREE, child_environment
from support.processes import Commands, Running
from support.waiting import until

from eventstore.database.embedded.embedded_server import EmbeddedServer
from tools.migrations.composition import Schema
from tools.migrations.locks import problems_after

pytestmark = pytest.mark.slow

PACKAGES = ("eventstore", "projections", "agent_manager", "db")
REQUESTS = 15
"""The number of requests that each server answers in each phase."""


def newest_tag() -> str | None:
    """Return the tag of the newest release before the present commit; None if there is none, or no repository."""
    command = ["git", "describe", "--tags", "--match", "v[0-9]*", "--abbrev=0", "HEAD^"]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def of_tag(tag: str, folder: Path) -> Path:
    """Return a folder with the packages of a tag."""
    archive = subprocess.run(["git", "archive", tag, *PACKAGES], cwd=TREE, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def with_further_migrations(folder: Path) -> Path:
    """Return a folder with the present packages, and migrations that a next release could have."""
    for package in PACKAGES:
        shutil.copytree(TREE / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    schema = folder / "db/schema"
    order = (schema / "order.txt").read_text().replace("    log/events\n", "    log/events\n    log/notes\n")
    (schema / "order.txt").write_text(order + "\nreleased\n")
    (schema / "log/notes.sql").write_text("CREATE TABLE notes (id bigint PRIMARY KEY);\nCREATE INDEX ON notes (id);\n")
    function = schema / "append/append_one.sql"
    function.write_text(function.read_text().replace("\nDECLARE\n", "\nDECLARE  -- of the next release\n", 1))
    Schema(folder / "db").next("notes")
    (folder / "db/migrations/29990101000000_column.sql").write_text(
        "-- migrate:up\nALTER TABLE events ADD COLUMN note text;\nALTER TABLE messages ADD COLUMN note text;\n\n"
        "-- migrate:down\nALTER TABLE events DROP COLUMN note;\nALTER TABLE messages DROP COLUMN note;\n"
    )
    (folder / "db/migrations/29990201000000_index.sql").write_text(
        "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY events_actor ON events (actor);\n\n"
        "-- migrate:down transaction:false\nDROP INDEX CONCURRENTLY events_actor;\n"
    )
    assert problems_after(Schema(TREE / "db").baseline, folder / "db/migrations") == []
    return folder


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the older and the newer release."""
    folder = tmp_path_factory.mktemp("release")
    tag = newest_tag()
    return (of_tag(tag, folder), TREE) if tag is not None else (TREE, with_further_migrations(folder))


@dataclass
class Client:
    """Sends messages and reads them back, until it is stopped, over one connection to one server."""

    port: int
    sent: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    is_stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.is_stopped.is_set():
            conversation, headers = str(uuid4()), {"Content-Type": "application/json"}
            path = f"/v1/conversations/{conversation}/messages"
            try:
                body = json.dumps({"role": "user", "content": conversation})
                answer = self._answer(connection, "POST", f"{path}?begin=true", body, headers)
                position = json.loads(answer)["position"]
                self.sent.append(conversation)
                assert conversation in self._answer(connection, "GET", f"{path}?at_least={position}", None, {})
            except Exception as error:
                self.failures.append(repr(error))
        connection.close()

    def _answer(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> str:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status < 300, f"{method} {path}: {response.status} {text}"
        return text


@contextmanager
def clients(*ports: int) -> Iterator[list[Client]]:
    """Clients that send until the end of the block, each to one server."""
    running = [Client(port) for port in ports]
    threads = [threading.Thread(target=client.run) for client in running]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        for client in running:
            client.is_stopped.set()
        for thread in threads:
            thread.join()


def await_requests(running: list[Client]) -> None:
    """Wait until each client has sent some more, or one has failed."""
    goals = [len(client.sent) + REQUESTS for client in running]
    until(
        lambda: any(client.failures for client in running)
        or all(len(client.sent) >= goal for client, goal in zip(running, goals, strict=True)),
        "each server has answered",
    )  # fmt: skip
    assert [failure for client in running for failure in client.failures] == []


def test_two_releases_serve_side_by_side_while_the_schema_changes(
    own_server: EmbeddedServer, started: Commands, releases: tuple[Path, Path]
) -> None:
    older, newer = releases

    def start(release: Path, *arguments: str) -> Running:
        return started.start(
            *arguments, DATABASE_URL=own_server.url(), PYTHONPATH=str(release), EVENTSTORE_RATE_PER_SECOND="1e6"
        )

    def serve(release: Path) -> tuple[Running, int]:
        running = start(release, "up", "--port", "0")
        running.until_printed("Ctrl-C")
        [port] = re.findall(r"^HTTP +http://127.0.0.1:(\d+);", running.out, re.MULTILINE)
        return running, int(port)

    old, old_port = serve(older)
    with clients(old_port) as first:
        await_requests(first)
        if set(versions(older)) < set(versions(newer)):  # else the releases differ in code only
            refused = start(newer, "project")
            assert refused.wait() == 1
            assert re.search(r"lacks \d+ migration\(s\).*eventstore migrate up", refused.err)
        new, new_port = serve(newer)
        assert applied(own_server) >= set(versions(newer))
        await_requests(first)
        with clients(new_port) as more:
            await_requests(first + more)
            again, again_port = serve(older)  # as after a crash, before it is replaced
            with clients(again_port) as returned:
                await_requests(first + more + returned)
            assert again.interrupt(signal.SIGTERM) == 0
            all_clients = [*first, *more, *returned]
    assert old.interrupt(signal.SIGTERM) == 0
    with clients(new_port) as last:
        await_requests(last)
    all_clients += last
    assert [failure for client in all_clients for failure in client.failures] == []
    sent = {conversation for client in all_clients for conversation in client.sent}
    with psycopg.connect(own_server.superuser_url, dbname="flowagents") as connection:
        stored = connection.execute("SELECT content->>'content' FROM events WHERE event_type = 'message.added'")
        contents = [content for (content,) in stored]
    assert len(contents) == len(set(contents)), "an event twice"
    assert sent <= set(contents), "an acknowledged event lost"
    verified = start(newer, "verify")
    assert verified.wait() == 0, verified.err
    assert new.interrupt(signal.SIGTERM) == 0


def versions(release: Path) -> list[str]:
    """The versions of the migrations of a release."""
    return [path.name.partition("_")[0] for path in (release / "db/migrations").glob("*.sql")]


def applied(server: EmbeddedServer) -> set[str]:
    """The versions that the database has."""
    with psycopg.connect(server.superuser_url, dbname="flowagents") as connection:
        return {str(version) for (version,) in connection.execute("SELECT version FROM eventstore_migrations")}


def test_the_packages_of_a_tag_can_be_run(tmp_path: Path) -> None:
    repository = subprocess.run(["git", "rev-parse", "HEAD"], cwd=TREE, capture_output=True, text=True, check=False)
    if repository.returncode:
        pytest.skip("the source tree is no repository")
    command = [sys.executable, "-c", "import agent_manager, eventstore; print(eventstore.__file__)"]
    folder = of_tag("HEAD", tmp_path)
    environment = child_environment(PYTHONPATH=str(folder))
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(folder / "eventstore/__init__.py")
