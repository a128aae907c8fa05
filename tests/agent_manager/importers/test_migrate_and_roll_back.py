"""An in-memory application is migrated, written to in the store, and rolled back: from end to end."""

from __future__ import annotations

import asyncio
import json
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.environment import child_environment
from support.ports import free_port
from support.processes import Commands, Running
from support.raw import insert_unchecked
from support.waiting import SECONDS, until

from agent_manager.factory import AsyncManager
from eventstore import EventStore, Settings, conversation_uuid

pytestmark = pytest.mark.slow

Json = dict[str, Any]


class Application:
    """The in-memory application, as a process that commands start and stop."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        python = f"{shlex.quote(sys.executable)} -m support.demoapp"
        self.start_command = f"echo it starts; {python} {self.url.rpartition(':')[2]} &"
        self.stop_command = f"{python} stop {self.url}"

    def call(self, method: str, params: Any = None) -> Any:
        """Return the result of an endpoint."""
        answer = httpx.post(f"{self.url}/{method}", json={"params": params}, timeout=SECONDS)
        return answer.raise_for_status().json()["result"]

    def answers(self) -> bool:
        """Return whether the application has started."""
        try:
            return self.call("conversation/list") is not None
        except httpx.HTTPError:
            return False


@pytest.fixture
def application(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    """The running application with two conversations."""
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    application = Application()
    subprocess.run(f"({application.start_command}) >/dev/null 2>&1", shell=True, check=True)
    until(application.answers, "the application answers")
    for text in ("Olá", "até já"):
        conversation = application.call("conversation/create")["conversation_id"]
        for number in range(3):
            application.call("message/send", message(f"m{number % 2}", conversation, text))
        application.call("message/list", conversation)
    yield application
    if application.answers():
        subprocess.run(application.stop_command, shell=True, check=True)


def message(message_id: str, context_id: str, text: str) -> Json:
    """Return a message with a file, which the application stores separately when it lists its messages."""
    return {
        "role": "user",
        "messageId": message_id,
        "contextId": context_id,
        "parts": [{"kind": "text", "text": text}, {"kind": "file", "file": {"bytes": "AAEC", "mimeType": "image/png"}}],
    }


def ids(conversations: list[Json]) -> list[str]:
    """Return the ids of conversations."""
    return [conversation["conversation_id"] for conversation in conversations]


def texts(conversation: Json) -> list[str]:
    """Return the texts of a conversation, as the application lists it."""
    return [part["text"] for message in conversation["messages"] for part in message["parts"] if "text" in part]


def migrate(application: Application, started: Commands, database_url: str, backups: Path, *options: str) -> Running:
    """Import from the running application, and return the command, which has succeeded."""
    command = ("import", "--from-url", application.url, "--backups", str(backups), *options)
    migration = started.start(*command, DATABASE_URL=database_url)
    assert migration.wait() == 0, migration.err
    return migration


def test_migration_and_rollback_lose_nothing(
    application: Application, started: Commands, database_url: str, backups: Path, settings: Settings
) -> None:
    before = application.call("conversation/list")
    tasks = application.call("task/list")
    migration = migrate(application, started, database_url, backups)
    assert "2 conversations, 12 messages, 6 tasks: all are in the store as they were" in migration.out

    async def write_to_store() -> None:
        async with EventStore(settings) as store, AsyncManager(store) as manager:
            await manager.save_message(message("m0", before[0]["conversation_id"], "sent in the store"))
            await manager.create_conversation("Local", "local")
            await manager.save_message(message("m1", "local", "begun in the store"))

    asyncio.run(write_to_store())
    rollback = started.start(
        "rollback", "--backups", str(backups), "--url", application.url, "--json", "--seconds", "30",
        "--stop-command", application.stop_command, "--start-command", application.start_command,
        DATABASE_URL=database_url,
    )  # fmt: skip
    assert rollback.wait() == 0, rollback.err + rollback.out
    report = json.loads(rollback.out)
    assert report["clean"] is True
    assert report["started"] is True
    assert (backups / "application.log").read_text().startswith("it starts")
    assert report["served"]["conversations_that_differ"] == []

    after = application.call("conversation/list")
    assert [conversation["conversation_id"] for conversation in after] == [
        *(conversation["conversation_id"] for conversation in before),
        "local",
    ]
    assert texts(after[0]) == [*texts(before[0]), "sent in the store"]
    assert texts(after[1]) == texts(before[1])
    assert texts(after[2]) == ["begun in the store"]
    assert after[2]["name"] == "Local"
    files = [part["file"]["bytes"] for message in after[0]["messages"] for part in message["parts"] if "file" in part]
    assert files == ["AAEC"] * 7
    assert [task["contextId"] for task in application.call("task/list")] == [task["contextId"] for task in tasks]

    check = started.start(
        "rollback", "--check", "--backups", str(backups), "--url", application.url, DATABASE_URL=database_url
    )
    check.wait()
    assert "Served      all 2 conversations as they were" in check.out


def test_if_the_application_cannot_be_stopped_nothing_is_done(
    application: Application, started: Commands, database_url: str, backups: Path
) -> None:
    migrate(application, started, database_url, backups)
    rollback = started.start(
        "rollback", "--backups", str(backups), "--stop-command", "exit 3", "--start-command", "true",
        DATABASE_URL=database_url,
    )  # fmt: skip
    assert rollback.wait() == 1
    assert "failed with exit code 3" in rollback.err
    assert not (backups / "restore.jsonl.gz").exists()
    assert application.answers()


def test_if_the_application_does_not_start_that_is_reported(
    application: Application, started: Commands, database_url: str, backups: Path
) -> None:
    migrate(application, started, database_url, backups)
    rollback = started.start(
        "rollback", "--backups", str(backups), "--stop-command", application.stop_command, "--start-command", "exit 4",
        "--url", application.url, DATABASE_URL=database_url,
    )  # fmt: skip
    assert rollback.wait() == 1
    assert "start the application yourself" in rollback.err
    assert (backups / "restore.jsonl.gz").exists()


def test_an_event_with_the_id_of_another_conversation_does_not_prevent_a_rollback(
    application: Application, started: Commands, database_url: str, superuser_url: str, backups: Path
) -> None:
    migrate(application, started, database_url, backups)
    given_id = application.call("conversation/list")[0]["conversation_id"]
    claiming = conversation_uuid("default", "claiming")
    event = insert_unchecked(superuser_url, claiming, "conversation.created", {"name": "", "given_id": given_id})
    rollback = started.start("rollback", "--backups", str(backups), DATABASE_URL=database_url)
    assert rollback.wait() == 0, rollback.err + rollback.out
    assert "3 conversations, 12 messages, 6 tasks: all are restored as they were" in rollback.out
    assert f"Ignored     conversation '{claiming}': event {event}: its given_id '{given_id}'" in rollback.out


def add_tenants(started: Commands, database_url: str, *tenants: str) -> None:
    for tenant in tenants:
        assert started.start("tenants", "add", tenant, DATABASE_URL=database_url).wait() == 0


def test_a_rollback_uses_no_backup_of_another_tenant(
    application: Application, started: Commands, database_url: str, backups: Path
) -> None:
    arguments = ("--backups", str(backups), "--tenant")
    add_tenants(started, database_url, "acme", "globex")
    migrate(application, started, database_url, backups, "--tenant", "acme")
    [backup] = backups.glob("backup-*.jsonl.gz")
    for further in ([], ["--backup", str(backup)]):
        for check in ([], ["--check"]):
            rollback = started.start("rollback", *arguments, "globex", *further, *check, DATABASE_URL=database_url)
            assert (rollback.wait(), rollback.out) == (1, "")
            assert "tenant 'acme'" in rollback.err
    assert not (backups / "restore.jsonl.gz").exists()
    own = started.start("rollback", *arguments, "acme", DATABASE_URL=database_url)
    assert own.wait() == 0, own.err
    assert {stat.S_IMODE(path.stat().st_mode) for path in backups.iterdir()} == {0o600}


def test_a_backup_is_imported_into_another_tenant_only_if_that_is_named(
    application: Application, started: Commands, database_url: str, backups: Path
) -> None:
    arguments = ("--backups", str(backups))
    add_tenants(started, database_url, "acme", "globex")
    migrate(application, started, database_url, backups, "--tenant", "acme")
    [backup] = backups.glob("backup-*.jsonl.gz")
    unnamed = started.start("import", "--from-backup", str(backup), *arguments, DATABASE_URL=database_url)
    assert (unnamed.wait(), unnamed.out) == (1, "")
    assert "is a backup of tenant 'acme'" in unnamed.err
    into = ("--tenant", "globex")
    named = started.start("import", "--from-backup", str(backup), *arguments, *into, DATABASE_URL=database_url)
    assert named.wait() == 0, named.err
    rollback = started.start("rollback", *arguments, *into, DATABASE_URL=database_url)
    assert rollback.wait() == 0, rollback.err
