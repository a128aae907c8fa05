"""An error is a line or two on standard error that names the culprit and what to do, with exit code 1."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.commandline import EVERYTHING, Eventstore, Result, rows_of
from support.processes import Commands
from support.waiting import until

from eventstore import Settings
from eventstore.database.migrate import Migrator

pytestmark = pytest.mark.shared_database

CONVERSATION = json.dumps({"id": "c-{}", "messages": [{"role": "user", "content": "hello"}]})
READING = [("conversations",), ("messages", "x"), ("tasks", "x"), ("history", "x"), ("tail",), ("status",)]
ONCE = [*READING, ("import", "chats.jsonl"), ("seed",), ("rebuild",)]
ALL = [*ONCE, ("project",)]


def assert_refused(result: Result, *words: str) -> None:
    assert result.code == 1, result
    lines = result.err.splitlines()
    assert 1 <= len(lines) <= 2, result.err
    assert lines[0].startswith("eventstore: error: ")
    assert "Traceback" not in result.err
    assert result.out == ""
    for word in words:
        assert word in result.err


@pytest.fixture
def chats(clean_environment: None) -> Path:
    """A file with one good line, in the working directory."""
    file = Path("chats.jsonl")
    file.write_text(CONVERSATION.replace("{}", "1") + "\n")
    return file


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine on which nobody listens, and that nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("command", ["messages", "tasks", "history"])
@pytest.mark.parametrize("unknown", ["nonsense", "00000000-0000-4000-8000-000000000000", "\x1b[31m", "\udcff"])
def test_an_unknown_conversation(library: Eventstore, command: str, unknown: str) -> None:
    result = library(command, unknown)
    assert_refused(result)
    assert "\x1b" not in result.err
    if unknown != "\udcff":
        assert "the list of conversations shows the ids" in result.err


def test_an_unknown_role_or_status(library: Eventstore) -> None:
    assert_refused(library("messages", EVERYTHING, "--role", "robot"), "role: 'robot' is unknown", "user, assistant")
    assert_refused(library("tasks", EVERYTHING, "--status", "done"), "status: 'done' is unknown", "input-required")


@pytest.mark.parametrize("arguments", [*ONCE, ("up",), ("migrate", "up"), ("migrate", "status")], ids=" ".join)
def test_an_unreachable_server(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, closed_port: int, chats: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://ana:secret@127.0.0.1:{closed_port}/chats")
    result = eventstore(*arguments)
    assert_refused(result, f"127.0.0.1:{closed_port}", "start the server, or correct DATABASE_URL")
    assert "secret" not in result.err


@pytest.mark.slow
def test_workers_wait_for_an_unreachable_server_and_report_it_once(
    started: Commands, database_url: str, chats: Path, tmp_path: Path
) -> None:
    to = conninfo_to_dict(database_url)
    folder = tmp_path / "server"
    folder.mkdir()
    socket_file = f".s.PGSQL.{to.get('port') or 5432}"
    url = f"postgresql://{to['user']}@/{to['dbname']}?host={folder}&port={to.get('port') or 5432}"
    one, other = (started.start("project", DATABASE_URL=url) for _ in range(2))
    for worker in (one, other):
        until(lambda worker=worker: "waiting for the server" in worker.err, "it says that it waits")
    assert other.interrupt() == 0
    (folder / socket_file).symlink_to(Path(str(to["host"])) / socket_file)
    one.until_printed("follow the log")
    assert one.err.count("waiting for the server") == 1
    assert one.interrupt() == 0


@pytest.mark.parametrize("url", ["nonsense", "mysql://a@b/c", "postgresql://ana:secret@host:port/db", "postgresql://h"])
def test_a_bad_url(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    result = eventstore("status")
    assert_refused(result, "DATABASE_URL: ", "postgresql://user:password@host:port/database")
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EVENTSTORE_POOL_SIZE", "many"),
        ("EVENTSTORE_SCHEMA", "Bad Name"),
        ("EVENTSTORE_SCHEMA", "pg_mine"),
        ("POSTGRES_PORT", "70000"),
        ("EVENTSTORE_MAX_CONTENT_BYTES", "1"),
        *(
            (name, "")
            for name in (
                "EVENTSTORE_TENANT",
                "EVENTSTORE_DATA_DIR",
                "EVENTSTORE_SCHEMA",
                "EVENTSTORE_LISTEN_URL",
                "EVENTSTORE_READ_URL",
                "EVENTSTORE_PG_PORT",
                "DATABASE_URL",
                "POSTGRES_HOST",
                "POSTGRES_PORT",
                "POSTGRES_DB",
                "POSTGRES_USER",
                "POSTGRES_PASSWORD",
            )
        ),
        ("EVENTSTORE_DATA_DIR", " "),
        ("EVENTSTORE_CONNECT_TIMEOUT", "0"),
    ],
)
def test_a_bad_setting_is_named(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert_refused(
        eventstore("status"), name.removeprefix("EVENTSTORE_"), "correct the environment, .env or the option"
    )


def test_a_bad_tenant(library: Eventstore) -> None:
    assert_refused(library("conversations", "--tenant", "x" * 256), "TENANT")


@pytest.mark.parametrize(
    "given",
    [
        ("--data-dir", ""),
        ("--data-dir=",),
        ("--tenant", ""),
        ("--tenant=",),
        ("--since", ""),
        ("--after=",),
        ("-n", ""),
    ],
    ids=" ".join,
)
def test_an_empty_option_is_wrong_usage(library: Eventstore, given: tuple[str, ...]) -> None:
    for command in (["conversations"], ["messages", EVERYTHING, "--json"]):
        result = library(*command, *given)
        assert (result.code, result.out) == (2, "")
        assert given[0] in result.err
        assert "is empty: give a value, or leave out the option" in result.err


def test_an_empty_text_after_two_dashes_is_an_argument(library: Eventstore) -> None:
    assert "no conversation has the id ''" in library("messages", "--", "").err


@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
def test_a_database_without_the_schema(
    eventstore: Eventstore,
    monkeypatch: pytest.MonkeyPatch,
    empty_database_url: str,
    chats: Path,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    assert_refused(eventstore(*arguments), "no schema of the store yet: eventstore migrate up")


@pytest.mark.own_database
def test_a_schema_that_is_too_old(empty: Eventstore, database_url: str) -> None:
    Migrator(database_url, Settings(database_url=database_url)).down()
    assert_refused(empty("status"), "lacks 1 migration(s), first ", "eventstore migrate up")


@pytest.mark.own_database
@pytest.mark.parametrize("arguments", [("status",), ("up",), ("migrate", "up")], ids=" ".join)
def test_a_schema_that_is_too_new(empty: Eventstore, database_url: str, arguments: tuple[str, ...]) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO eventstore_migrations (version) VALUES ('20990101000000'), ('0 20990101000000')"
        )
    assert_refused(empty(*arguments), "20990101000000", "upgrade flowagents-eventstore")


@pytest.mark.parametrize("arguments", [("status",), ("import", "chats.jsonl")], ids=" ".join)
def test_a_database_that_does_not_exist(
    empty: Eventstore,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    database_url: str,
    chats: Path,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.replace(database, "no_such_database"))
    assert_refused(empty(*arguments), "no_such_database", "does not exist")


def test_a_missing_file_imports_nothing(empty: Eventstore, chats: Path) -> None:
    assert_refused(empty("import", str(chats), "missing.jsonl"), "missing.jsonl: No such file or directory")
    assert json.loads(empty("status", "--json").out)["events"] == 0


@pytest.fixture
def mixed(clean_environment: None) -> Path:
    """Two good lines with bad ones between."""
    file = Path("mixed.jsonl")
    good = CONVERSATION.replace("{}", "1"), CONVERSATION.replace("{}", "2")
    robot = '{"id": "c-3", "messages": [{"role": "robot", "content": "\\u001b[31m"}]}'
    file.write_text("\n".join([good[0], "{not JSON", robot, "[]", good[1]]) + "\n")
    return file


def test_malformed_lines_are_reported_and_the_others_are_imported(empty: Eventstore, mixed: Path) -> None:
    result = empty("import", str(mixed))
    assert result.code == 1
    assert [line.partition(" ")[0] for line in result.err.splitlines()] == [f"mixed.jsonl:{n}:" for n in (2, 3, 4)]
    assert "messages[0].role: 'robot' is not a known role" in result.err
    assert "2 conversations, 2 messages" in result.out
    assert "; 3 not imported" in result.out
    assert len(rows_of(empty, "conversations")) == 2


def test_an_import_reports_as_json(empty: Eventstore, mixed: Path) -> None:
    result = empty("import", "--json", str(mixed))
    assert (result.code, result.err) == (1, "")
    report = json.loads(result.out)
    assert (report["conversations"], report["messages"], report["known_events"]) == (2, 2, 0)
    assert report["rejected"] == 3
    assert all(problem["reason"] for problem in report["problems"])
    assert len({problem["line"] for problem in report["problems"]}) == 3
    seeded = json.loads(empty("seed", "--json").out)
    assert (seeded["new_events"], seeded["problems"]) == (15, [])


def test_strict_stops_at_the_first_malformed_line(empty: Eventstore, mixed: Path) -> None:
    assert_refused(empty("import", "--strict", str(mixed)), "mixed.jsonl:2: ")
    assert len(rows_of(empty, "tail")) == 2, "what stood before the line is in"


def test_importing_again_adds_nothing(empty: Eventstore, chats: Path) -> None:
    first, second = empty("import", str(chats)), empty("import", str(chats))
    assert (first.code, second.code) == (0, 0)
    assert first.out == "1 conversations, 1 messages, 0 tasks: 2 new events, 0 known already\n"
    assert second.out == "1 conversations, 1 messages, 0 tasks: 0 new events, 2 known already\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("conversation",),
        ("conversations", "--limit", "0"),
        ("conversations", "--limit", "many"),
        ("tail", "--limit", "-1"),
        ("status", "--nonsense"),
        ("up", "--pg-port", "0"),
        ("import",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_explained(eventstore: Eventstore, arguments: tuple[str, ...]) -> None:
    result = eventstore(*arguments)
    assert result.code == 2
    assert "Usage: " in result.err
    assert "Traceback" not in result.err
