"""A healthy store on a server of its own, whose faults a test makes by hand, and the command that has to find them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.commandline import Eventstore, program_in_process
from support.environment import clear_settings
from support.fork_server import ForkServer
from support.processes import Commands, Running, commands
from support.servers import embedded_server, memory_folder, open_folder
from support.waiting import until

from agent_manager.cli import main
from eventstore import MessageAdded, Settings, SyncEventStore
from eventstore.database.embedded.embedded_server import EmbeddedServer

SERVER = {
    "archive_mode": "on",
    "archive_command": "true",
    "max_notify_queue_pages": "64",
    "max_prepared_transactions": "4",
}
"""Settings for which a server must be restarted."""


@dataclass
class Installation:
    """A store, its server and its worker.

    Attributes:
        url: for the login of the service, a member of pg_monitor.
        backups: its directory of backups.
    """

    server: EmbeddedServer
    backups: Path
    worker: Running
    started: Commands

    def restart_worker(self) -> None:
        """Start another worker, after the one before has ended."""
        self.worker = self.started.start("project", DATABASE_URL=self.url)
        self.worker.until_printed("Ctrl-C")

    @property
    def url(self) -> str:
        return self.server.url()

    def superuser(self) -> psycopg.Connection[Any]:
        """Open a session of the superuser in autocommit mode."""
        # A commit of its own does not wait for the standby that a test demands.
        return psycopg.connect(self.server.superuser_url, autocommit=True, options="-c synchronous_commit=local")

    def append(self, text: str = "hello") -> None:
        """Append a message to a new conversation, which only a worker applies."""
        with SyncEventStore(Settings(database_url=self.url)) as store:
            store.append(uuid4(), [MessageAdded(role="user", content=text)])

    def execute(self, statements: str) -> None:
        """Execute statements, each by itself, as an administrator types them."""
        with self.superuser() as connection:
            for statement in statements.split(";"):
                connection.execute(statement.encode())
            # A setting takes effect when a process looks: until then, doctor could be faster.
            connection.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="session")
def installation(
    tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer | list[str]
) -> Iterator[Installation]:
    """A healthy store with a worker and a backup."""
    folder = tmp_path_factory.mktemp("installation")
    with pytest.MonkeyPatch.context() as patch, open_folder(memory_folder()) as data:
        clear_settings(patch)
        patch.chdir(folder)
        with embedded_server(data / "server") as own, psycopg.connect(own.superuser_url, autocommit=True) as superuser:
            for name, value in SERVER.items():
                if superuser.execute("SELECT FROM pg_settings WHERE name = %s", (name,)).fetchone() is not None:
                    superuser.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        with embedded_server(data / "server") as own, commands(folder / "output", fork_server) as started:
            environment = {"DATABASE_URL": own.url()}
            for command in (["migrate", "up"], ["seed"], ["backup", "create", "backups"]):
                done = started.start(*command, **environment)
                assert done.wait() == 0, done.err
            worker = started.start("project", **environment)
            worker.until_printed("Ctrl-C")
            yield Installation(own, folder / "backups", worker, started)


class Doctor:
    """Calls the command, and gives its findings by check."""

    def __init__(self, program: Eventstore) -> None:
        self._program = program
        self.code = 0

    def __call__(self, *options: str) -> dict[str, list[dict[str, str]]]:
        result = self._program("doctor", "--json", *options)
        assert result.err == ""
        self.code = result.code
        found: dict[str, list[dict[str, str]]] = {}
        for finding in json.loads(result.out)["findings"]:
            found.setdefault(finding["check"], []).append(finding)
        return found

    def problems(self, *options: str) -> set[str]:
        """The names of the checks that are not ok."""
        found = self(*options)
        return {check for check, findings in found.items() if {each["severity"] for each in findings} != {"ok"}}

    def until(self, check: str, *options: str, contains: str = "") -> dict[str, str]:
        """Call it until a check has a problem, and return the first finding that contains a text."""
        last: list[dict[str, str]] = []

        def look() -> list[dict[str, str]]:
            last[:] = self(*options)[check]
            return [each for each in last if each["severity"] != "ok" and contains in each["finding"]]

        try:
            return until(look, f"{check} finds it")[0]
        except AssertionError as error:
            raise AssertionError(f"{error}; it finds {last}") from None

    def until_well(self, *options: str) -> None:
        """Call it until everything is ok."""
        last: list[dict[str, str]] = []

        def look() -> bool:
            last[:] = [each for each in self(*options).values() if each[0]["severity"] != "ok"]  # type: ignore[misc]
            return not last

        with suppress(AssertionError):
            until(look, "everything is ok")
        assert (last, self.code) == ([], 0)


@pytest.fixture
def eventstore(
    installation: Installation,
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Eventstore:
    """The command line, on the store."""
    monkeypatch.setenv("DATABASE_URL", installation.url)
    monkeypatch.setenv("EVENTSTORE_BACKUP_DIR", str(installation.backups))
    return program_in_process("eventstore", main, monkeypatch, capsys)


@pytest.fixture
def doctor(eventstore: Eventstore) -> Doctor:
    """The command doctor, on the store."""
    return Doctor(eventstore)


Type = Callable[[str], None]


@pytest.fixture
def type_remedy(installation: Installation, eventstore: Eventstore) -> Type:
    """Return a function that types a remedy: a command of eventstore, or statements for psql."""

    def type_it(remedy: str) -> None:
        for line in remedy.split(";"):
            if line.strip().startswith("eventstore "):
                result = eventstore(*line.split()[1:])
                assert result.code == 0, result.err
            else:
                installation.execute(line)

    return type_it
