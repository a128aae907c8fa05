"""Every table at every width: ids and numbers stay whole, no text is lost, nothing reaches the terminal unescaped."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from rich.cells import cell_len
from support.commandline import STRANGE, Eventstore
from support.environment import child_environment, clear_settings
from support.processes import EVENTSTORE
from support.scoped_queries import open_as
from support.servers import DatabaseServer

from agent_manager.auth import Directory
from eventstore import (
    ConversationCreated,
    EventStore,
    MessageAdded,
    Settings,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatusChanged,
    conversation_uuid,
)
from projections import catch_up

WIDTHS = (40, 60, 80, 120, 200)
WIDE = "東京の天気 👩‍👩‍👧 👍🏽 " * 12
LONG = f"trip to the sea {STRANGE} \u202e\u2028\t" + "very " * 40 + "long\nin two lines"
TASK = UUID("7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e")
CROWDED_UUID = str(conversation_uuid("default", "crowded"))
NAMELESS = UUID("0a6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e")

TABLES = [
    ("conversations",),
    ("conversation", "crowded"),
    ("messages",),
    ("messages", "crowded"),
    ("tasks",),
    ("tasks", "crowded"),
    ("history",),
    ("history", "crowded"),
    ("tail",),
    ("search", "trip"),
    ("pending",),
    ("status",),
    ("stats",),
    *(("stats", "--by", by) for by in ("day", "role", "actor", "status")),
    ("parked",),
    ("migrate", "status"),
    ("tenants", "list"),
    ("tenants", "logins"),
    ("users", "list"),
    ("keys", "list"),
]

EXACT = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[\d,.:]+( (s|ms|min|h|d))?|\d{4}-\d\d-\d\d( \d\d:\d\d:\d\dZ?)?"
    r"|[a-z0-9]{12}|[a-z_]+\.[a-z_]+"
)
"""Ids, numbers, times, types of events."""


@pytest.fixture(scope="module")
def crowded_url(server: DatabaseServer) -> Iterator[str]:
    """A database with rows in every table, positions of five digits, and texts that are hard to show."""
    name, login = server.create_database(), f"login_{os.getpid()}"
    superuser_url = server.superuser_url_of(name)
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {login} LOGIN".encode())
        connection.execute("SELECT setval('events_position', 12040)")
    with pytest.MonkeyPatch.context() as patch:
        clear_settings(patch)
        asyncio.run(_fill(Settings(_env_file=None, database_url=server.url(name)), login))
    with open_as(server.url(name), "eventstore_owner") as owner:
        owner.execute(
            "INSERT INTO parked (projection, stage, tenant_id, conversation_id, position, version, event_id, "
            "event_type, sqlstate, error) VALUES ('tasks', 'live', 'default', %s, 12041, 1, %s, 'task.created', "
            "'23514', %s)",
            (NAMELESS, TASK, LONG),
        )
    yield server.url(name)
    server.drop_database(name)
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute(f"DROP ROLE {login}".encode())


async def _fill(settings: Settings, login: str) -> None:
    async with EventStore(settings) as store:
        crowded = conversation_uuid(store.tenant, "crowded")
        await store.append(crowded, [
            ConversationCreated(name=LONG[:255], given_id="crowded"),
            MessageAdded(role="user", content="x" * 84_949 + " trip " + "y"),
            MessageAdded(role="assistant", content=LONG),
            MessageAdded(role="user", content=WIDE, given_id="m1", awaits_answer=True),
            TaskCreated(task_id=TASK, description=LONG),
            TaskArtifactAdded(task_id=TASK, artifact_id="result", parts=[{"text": WIDE}]),
            TaskStatusChanged(task_id=TASK, status="completed"),
        ], actor=f"ana {STRANGE}")  # fmt: skip
        await store.append(NAMELESS, [ConversationCreated(name=WIDE), MessageAdded(role="user", content="trip")])
        directory = Directory(store)
        await directory.add_tenant("acme", LONG.replace("\n", " ")[:255])
        await directory.add_user("default", "ana", WIDE)
        await directory.add_key("default", WIDE[:100], user="ana")
        await directory.bind_login("default", login)
        await catch_up(store)


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, width: int, *arguments: str) -> str:
    """Return what a command prints on a terminal, without its styles."""
    with monkeypatch.context() as patch:
        terminal = Terminal()
        patch.setenv("COLUMNS", str(width))
        patch.setattr("sys.stdout", terminal)
        result = eventstore(*arguments)
    assert result.code == 0
    return re.sub(r"\x1b\[[01]m", "", terminal.getvalue())


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
@pytest.mark.slow
def test_no_table_loses_anything_at_any_width(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, crowded_url: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DATABASE_URL", crowded_url)
    result = eventstore(*arguments)
    assert result.code == 0
    cells = {cell for line in result.lines[1:] for cell in re.split(r" {2,}", line)} - {"uuid"}
    if arguments[0].startswith("conversation"):
        cells -= {CROWDED_UUID}  # beside the given id
    main = {cell for cell in cells if not re.fullmatch("█*[▏▎▍▌▋▊▉]?", cell)}
    for width in WIDTHS:
        out = shown(eventstore, monkeypatch, width, *arguments)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", out)
        assert max(cell_len(line) for line in out.splitlines()) <= width
        for cell in main:
            if EXACT.fullmatch(cell):
                assert re.search(rf"(?<![\w.,-]){re.escape(cell)}(?![\w-])", out), (width, cell)
            for word in cell.split():
                if cell_len(word) <= 20 and "\\" not in word:
                    assert word in out, (width, word)
        assert out.count("東") == result.out.count("東")


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_a_pipe_gets_every_column_whatever_the_width(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, crowded_url: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DATABASE_URL", crowded_url)
    outputs = set()
    for width in (WIDTHS[0], WIDTHS[-1]):
        monkeypatch.setenv("COLUMNS", str(width))
        outputs.add(re.sub(r"\d+\.\d s|last used", "", eventstore(*arguments).out))
    assert len(outputs) == 1
    assert "…" not in outputs.pop() or "history" in arguments or "tail" in arguments  # "what changed" is a summary


@pytest.mark.parametrize("width", [WIDTHS[0], WIDTHS[-1]])
@pytest.mark.slow
def test_a_terminal_shows_positions_and_ids_whole(clean_environment: None, crowded_url: str, width: int) -> None:
    out = in_terminal(width, "history", DATABASE_URL=crowded_url)
    assert max(cell_len(line) for line in re.sub(r"\x1b\[\d*m", "", out).splitlines()) <= width
    assert str(NAMELESS) in out
    assert re.search(r"\b12041\b", out)


@pytest.mark.slow
def test_a_terminal_gets_no_styles_if_it_is_asked_for_none(clean_environment: None, crowded_url: str) -> None:
    assert "\x1b[1m" in in_terminal(80, "history", DATABASE_URL=crowded_url)
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in in_terminal(80, "history", DATABASE_URL=crowded_url, **variables)


def in_terminal(width: int, *arguments: str, **environment: str) -> str:
    """Return what a command prints on a pseudoterminal."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    variables = child_environment(**{"TERM": "xterm-256color"} | environment)
    variables.pop("COLUMNS", None)
    process = subprocess.Popen(
        [*EVENTSTORE, *arguments], stdin=subprocess.DEVNULL, stdout=child, stderr=subprocess.DEVNULL, env=variables
    )
    os.close(child)
    output = b""
    try:
        while part := os.read(parent, 65536):
            output += part
    except OSError:  # the last process has closed its side
        pass
    os.close(parent)
    assert process.wait(60) == 0
    return output.decode().replace("\r\n", "\n")
