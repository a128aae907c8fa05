"""The guide to troubleshooting: the symptom of each section is made first, and is gone after its commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeAlias
from uuid import uuid4

import psycopg
import pytest
from support.certificates import self_signed
from support.commandline import Eventstore, rows_of
from support.pages import blocks_in, shell_lines, text_of
from support.processes import Commands
from support.sealing import create_keys
from support.servers import open_folder
from support.small_disk import fill_up, small_disk
from support.waiting import until

from agent_manager.backup import Archive, open_target
from agent_manager.backup.archive import ErasureRecord
from agent_manager.doctor import CHECKS
from eventstore import MessageAdded, Settings, SyncEventStore

from .conftest import Doctor, Installation

pytestmark = [pytest.mark.any_server, pytest.mark.slow]

PAGE = "docs/guides/troubleshooting.md"
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text_of(PAGE), re.MULTILINE | re.DOTALL))
TABLE = "What the doctor checks"
NOW = ("--warning", "0")


class Guide:
    """Types the commands of a section, on the store whose symptom was made."""

    def __init__(
        self,
        installation: Installation,
        doctor: Doctor,
        eventstore: Eventstore,
        patch: pytest.MonkeyPatch,
        started: Commands,
        folder: Path,
    ) -> None:
        self.installation, self.doctor, self.eventstore = installation, doctor, eventstore
        self.patch, self.started, self.folder = patch, started, folder

    def follow(self, section: str, values: dict[str, str]) -> None:
        """Type the commands of a section."""
        for block in blocks_in(section):
            text = block.text
            for placeholder, value in values.items():
                text = re.sub(rf"\b{placeholder}\b", value, text)
            if block.language == "sql":
                assert not re.search(r"\b(PID|KEY|INDEX_NAME)\b", text), text
                with self.installation.superuser() as connection:
                    connection.execute(text.encode())
                continue
            for line in shell_lines(type(block)(block.language, "", "", text)):
                program, *arguments = shlex.split(line)
                assert program == "eventstore", line
                self._type(line, arguments)

    def _type(self, line: str, arguments: list[str]) -> None:
        if arguments == ["project"]:
            self.started.start("project", DATABASE_URL=self.installation.url).until_printed("Ctrl-C")
            return
        result = self.eventstore(*arguments)
        assert result.code in ((0, 1, 2) if arguments[0] == "doctor" else (0,)), (line, result.err)

    @contextmanager
    def session(self, *statements: str) -> Iterator[dict[str, str]]:
        """A session that is left open after its statements; the value of PID."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.installation.url) as left:
            for statement in statements:
                left.execute(statement.encode())
            yield {"PID": str(left.info.backend_pid)}


@pytest.fixture
def guide(
    installation: Installation,
    doctor: Doctor,
    eventstore: Eventstore,
    monkeypatch: pytest.MonkeyPatch,
    started: Commands,
    tmp_path: Path,
) -> Iterator[Guide]:
    """The guide, and the healthy store before and after."""
    doctor.until_well()
    yield Guide(installation, doctor, eventstore, monkeypatch, started, tmp_path)
    doctor.until_well()


Symptom: TypeAlias = Callable[[Guide], Any]
SYMPTOMS: dict[str, Symptom] = {}


def symptom(heading: str) -> Callable[[Callable[[Guide], Iterator[dict[str, str]]]], None]:
    """Register a function that makes a symptom, yields the values of the section's placeholders, and checks the end."""

    def register(function: Callable[[Guide], Iterator[dict[str, str]]]) -> None:
        SYMPTOMS[heading] = contextmanager(function)

    return register


@symptom("The read tables fall behind")
def _behind(guide: Guide) -> Iterator[dict[str, str]]:
    assert guide.installation.worker.interrupt() == 0
    guide.installation.append()
    guide.doctor.until("workers", contains="no worker is running")
    guide.doctor.until("lag", *NOW, contains="the log is at position")
    yield {}
    guide.doctor.until_well()
    guide.installation.restart_worker()


@symptom("A worker is stuck")
def _stuck(guide: Guide) -> Iterator[dict[str, str]]:
    os.kill(guide.installation.worker.pid, signal.SIGSTOP)
    try:
        guide.installation.append()
        guide.doctor.until("workers", *NOW, contains="do not advance")
        yield {}
        guide.doctor.until_well()
    finally:
        os.kill(guide.installation.worker.pid, signal.SIGCONT)


@symptom("A conversation is parked")
def _parked(guide: Guide) -> Iterator[dict[str, str]]:
    guide.installation.execute("ALTER TABLE messages ADD CONSTRAINT broken CHECK (content <> 'unlucky') NOT VALID")
    guide.installation.append("unlucky")
    guide.doctor.until("parked", contains="messages has parked 1 conversation(s)")
    guide.installation.execute("ALTER TABLE messages DROP CONSTRAINT broken")
    yield {}
    assert "nothing is parked" in guide.eventstore("parked").err


@symptom("pg_wal grows")
def _wal(guide: Guide) -> Iterator[dict[str, str]]:
    guide.installation.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    guide.doctor.until("replication_slots", contains="the replication slot forgotten is not in use, and keeps")
    yield {}


@symptom("Readers see no new events")
def _held_back(guide: Guide) -> Iterator[dict[str, str]]:
    with guide.session("SET ROLE eventstore_owner", "SELECT register_append()") as values:
        guide.doctor.until("appends", *NOW, contains="readers see no event after it")
        assert "in flight" in guide.eventstore("status").out
        yield values


@symptom("Dead rows stay")
def _open(guide: Guide) -> Iterator[dict[str, str]]:
    with guide.session("SELECT") as values:
        guide.doctor.until("transactions", *NOW, contains="has a transaction open for")
        yield values


@symptom("A session blocks others")
def _blocked(guide: Guide) -> Iterator[dict[str, str]]:
    key = "hashtext('a conversation')"
    with (
        guide.session(f"SELECT pg_advisory_xact_lock({key})") as values,
        psycopg.connect(guide.installation.url) as other,
    ):
        waiting = threading.Thread(target=other.execute, args=(f"SELECT pg_advisory_xact_lock({key})",))
        waiting.start()
        guide.doctor.until("locks", *NOW, contains="blocks 1 session(s)")
        yield values
        waiting.join(30)
        assert not waiting.is_alive()


@symptom("Appends are slow")
def _slow(guide: Guide) -> Iterator[dict[str, str]]:
    guide.installation.execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'")
    guide.doctor.until("standbys", contains="appends wait for 1 synchronous standby(s)")
    yield {}
    guide.installation.append()


@symptom("Search is slow")
def _search(guide: Guide) -> Iterator[dict[str, str]]:
    guide.installation.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_search_documents_words'::regclass"
    )
    found = guide.doctor.until("indexes")
    yield {"INDEX_NAME": found["remedy"].split()[-1]}
    assert guide.eventstore("search", "train").code == 0


@symptom("No connection is free")
def _connections(guide: Guide) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(psycopg.connect(guide.installation.url, autocommit=True))
        guide.installation.execute("ALTER ROLE eventstore CONNECTION LIMIT 30")
        guide.doctor.until("connections", contains="of 30 connections")
        yield {}
        guide.doctor.until_well()
        guide.installation.execute("ALTER ROLE eventstore CONNECTION LIMIT -1")


@symptom("The queue of notifications is full")
def _queue(guide: Guide) -> Iterator[dict[str, str]]:
    with psycopg.connect(guide.installation.url) as listening:
        listening.execute("LISTEN nothing")
        listening.commit()
        if listening.info.server_version < 170000:
            pytest.skip("the queue of 8 GB takes too long to fill")
    with suppress(psycopg.OperationalError), psycopg.connect(guide.installation.url) as listening:
        listening.execute("LISTEN nothing")
        listening.commit()
        listening.execute("SELECT")  # a transaction that stays open: it reads no notification
        with (
            psycopg.connect(guide.installation.url, autocommit=True) as filling,
            suppress(psycopg.errors.ProgramLimitExceeded),
        ):
            while True:
                filling.execute("SELECT pg_notify('nothing', repeat('x', 7000) || n) FROM generate_series(1, 8) n")
        guide.doctor.until("notify_queue")
        yield {"PID": str(listening.info.backend_pid)}


@symptom("The server does not start, or is not reached")
def _dead(guide: Guide) -> Iterator[dict[str, str]]:
    pid = guide.installation.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: "connection" in guide.doctor.problems(), "the server is away")
    assert guide.doctor.code == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL")
        patch.setenv("EVENTSTORE_DATA_DIR", str(guide.installation.server.data_dir))
        yield {}


@symptom("A migration failed")
def _migration(guide: Guide) -> Iterator[dict[str, str]]:
    guide.installation.execute("CREATE SCHEMA other AUTHORIZATION eventstore; CREATE TABLE other.events ()")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENTSTORE_SCHEMA", "other")
        assert "events" in guide.eventstore("migrate", "up").err
        guide.doctor.until("migrations")
        guide.installation.execute("DROP TABLE other.events")
        yield {}
        assert guide.doctor()["migrations"][0]["severity"] == "ok"
        assert guide.eventstore("migrate", "down", "--all", "--destroy-events").code == 0
    guide.installation.execute("DROP SCHEMA other CASCADE")


@symptom("A restored database shows nothing, or everything")
def _restored(guide: Guide) -> Iterator[dict[str, str]]:
    guide.installation.execute("ALTER TABLE events NO FORCE ROW LEVEL SECURITY; ALTER TABLE messages OWNER TO postgres")
    guide.doctor.until("row_level_security")
    guide.doctor.until("roles")
    guide.installation.execute("ALTER TABLE messages OWNER TO eventstore_owner")
    yield {}


@symptom("A setting loses data")
def _durability(guide: Guide) -> Iterator[dict[str, str]]:
    guide.installation.execute("ALTER SYSTEM SET fsync = off")
    guide.doctor.until("durability", contains="fsync is off for the server")
    yield {}


@symptom("Events were changed")
def _changed(guide: Guide) -> Iterator[dict[str, str]]:
    guide.installation.execute("ALTER TABLE events DISABLE TRIGGER ALL")
    guide.doctor.until("triggers", contains="event_is_append_only on events")
    yield {}


@symptom("The log is not sealed")
def _unsealed(guide: Guide) -> Iterator[dict[str, str]]:
    create_keys(guide.folder / "audit.key")
    guide.patch.setenv("EVENTSTORE_AUDIT_KEY", str(guide.folder / "audit.key"))
    guide.installation.append()
    guide.doctor.until("sealed_log", *NOW, contains="0 events are sealed; the one at position 1 is not")
    yield {}
    guide.doctor.until_well()


@symptom("The backup is overdue")
def _overdue(guide: Guide) -> Iterator[dict[str, str]]:
    guide.patch.setenv("EVENTSTORE_BACKUP_MINUTES", "0.001")
    guide.doctor.until("backup", contains="intervals old")
    yield {}
    guide.patch.delenv("EVENTSTORE_BACKUP_MINUTES")


@symptom("What was erased is back")
def _back(guide: Guide) -> Iterator[dict[str, str]]:
    with SyncEventStore(Settings(database_url=guide.installation.url)) as store:
        trip = uuid4()
        store.append(trip, [MessageAdded(role="user", content="a secret")])
        now = datetime.now(UTC)
        record = ErasureRecord(
            id=uuid4(), tenant_id="default", conversation_id=trip, is_whole=True, versions=((1, 1),), until=now,
            erases_members=False, reason="", erased_at=now,
        )  # fmt: skip
        Archive(open_target(str(guide.installation.backups))).write_erasures([record])
        guide.doctor.until("erasures", contains="the log holds what was erased by 1 erasure(s)")
        yield {}
        assert [event.is_erased for event in store.read(trip)] == [True, False]


@symptom("A key was lost")
def _key(guide: Guide) -> Iterator[dict[str, str]]:
    assert guide.eventstore("keys", "add", "ci", "--tenant", "default").code == 0
    [row] = [line.split() for line in guide.eventstore("keys", "list").lines if " ci " in f" {line} "]
    yield {"KEY": row[0]}
    assert "ci-2" in guide.eventstore("keys", "list").out


@symptom("A clock jumped")
def _clock(guide: Guide) -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent_manager.doctor.database.time", lambda: datetime.now(UTC).timestamp() + 90)
        guide.doctor.until("clock", contains="the server's clock is 90 s behind this machine's")
    yield {}


@symptom("A certificate expires")
def _certificate(guide: Guide) -> Iterator[dict[str, str]]:
    self_signed(guide.folder)
    guide.doctor.until("certificates", "--certificate", "certificate.pem", contains="expires on")
    self_signed(guide.folder, valid=timedelta(days=365))
    yield {}
    assert guide.doctor("--certificate", "certificate.pem")["certificates"][0]["severity"] == "ok"


@symptom("The disk is full")
def _full(guide: Guide) -> Iterator[dict[str, str]]:
    with open_folder() as folder, small_disk(folder / "disk") as disk, pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL")
        patch.setenv("EVENTSTORE_DATA_DIR", str(disk / "server"))
        assert guide.eventstore("seed").code == 0
        ballast = fill_up(disk, leave=24_000_000)
        stored, error = append_until_it_fails(guide)
        assert re.search("No space left on device|the disk that holds", error)
        assert "make room" in error
        assert guide.doctor.until("disk")["severity"] == "critical"
        ballast.unlink()
        yield {}
        assert guide.doctor()["disk"][0]["severity"] == "ok"
        assert guide.eventstore("import", "large.jsonl").code == 0
        assert [len(rows_of(guide.eventstore, "messages", f"large {each}")) for each in range(stored + 1)] == [1] * (
            stored + 1
        )


def append_until_it_fails(guide: Guide) -> tuple[int, str]:
    """Import large chats until the disk is full; return how many were acknowledged, and the error."""
    for number in range(200):
        Path("large.jsonl").write_text(
            json.dumps({"id": f"large {number}", "messages": [{"role": "user", "content": token_hex(500_000)}]})
        )
        if (result := guide.eventstore("import", "large.jsonl")).code:
            return number, result.err
    pytest.fail("the disk is not full")


@pytest.mark.parametrize("heading", [heading for heading in SECTIONS if heading != TABLE])
def test_the_commands_of_a_section_end_its_symptom(heading: str, guide: Guide) -> None:
    with SYMPTOMS[heading](guide) as values:
        guide.follow(SECTIONS[heading], values)


def test_the_first_commands_of_the_guide_run(guide: Guide) -> None:
    guide.follow(text_of(PAGE).partition("\n## ")[0], {})


def test_every_check_is_in_the_table_and_in_no_other_order() -> None:
    assert re.findall(r"^\| `(\w+)` \|", SECTIONS[TABLE], re.MULTILINE) == list(CHECKS)


def test_sections_name_checks_that_exist() -> None:
    named = {name for text in SECTIONS.values() for line in re.findall(r"^\*.*?\*$", text, re.MULTILINE | re.DOTALL)
             for name in re.findall(r"`([a-z_]+)`", line)}  # fmt: skip
    assert named - {"status", "eventstore"} <= set(CHECKS) | {"status"}
