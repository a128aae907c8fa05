"""The command line as a process: its streams, its signals, its environment."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from support.commandline import EVERYTHING
from support.environment import TREE, child_environment
from support.processes import EVENTSTORE, Commands, commands, run
from support.waiting import until

from eventstore import ConversationCreated, EventStore, MessageAdded, conversation_uuid
from projections import catch_up

INTERRUPTED = 130


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["lines", "json"])
@pytest.mark.slow
async def test_tail_follows_until_interrupted(
    started: Commands, store: EventStore, database_url: str, form: tuple[str, ...]
) -> None:
    await store.append(uuid4(), [MessageAdded(role="user", content="before")])
    tail = started.start("tail", "--follow", *form, DATABASE_URL=database_url)
    tail.until_printed("before")
    for number in range(3):
        await store.append(uuid4(), [MessageAdded(role="user", content=f"after {number}")])
        tail.until_printed(f"after {number}")
    assert tail.interrupt() == INTERRUPTED
    assert tail.err.strip() in ("", "Aborted!")
    lines = tail.out.splitlines()
    assert len(lines) == 4
    if form:
        assert [json.loads(line)["position"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.slow
async def test_tail_follows_with_the_ids_that_clients_gave(
    started: Commands, store: EventStore, database_url: str
) -> None:
    async def begin(given_id: str) -> UUID:
        conversation = conversation_uuid(store.tenant, given_id)
        await store.append(conversation, [ConversationCreated(given_id=given_id)])
        return conversation

    trip = await begin("trip")
    await catch_up(store)
    tail = started.start("tail", "--follow", "--limit", "1", DATABASE_URL=database_url)
    tail.until_printed("created")
    for conversation in (trip, await begin("new trip"), uuid4()):
        await store.append(conversation, [MessageAdded(role="user", content=f"in {conversation}")])
        tail.until_printed(f"in {conversation}")
    tail.kill()
    named = [line.split("  ")[-2] for line in tail.out.splitlines()]
    assert named == ["trip", "new trip", "trip", "new trip", str(conversation)]


@pytest.mark.slow
async def test_tail_without_earlier_events_follows_from_now_on(
    started: Commands, store: EventStore, database_url: str
) -> None:
    await store.append(uuid4(), [MessageAdded(role="user", content="before")])
    tail = started.start("tail", "-f", "-n", "0", DATABASE_URL=database_url)

    for number in range(100):  # from when on it follows can be seen only from what it prints
        await store.append(uuid4(), [MessageAdded(role="user", content=f"after {number}")])
        with suppress(AssertionError):
            until(lambda: tail.out, "something is printed", 0.3)
            break
    assert "before" not in tail.out
    assert "after" in tail.out
    tail.kill()


@pytest.mark.parametrize(
    "module", ["typer", "pydantic_core", "psycopg", "agent_manager.cli.options", "asyncio.runners"]
)
@pytest.mark.slow
def test_an_interrupt_during_the_imports_ends_a_command_silently(
    clean_environment: None, tmp_path: Path, library_url: str, module: str
) -> None:
    with commands(tmp_path / "output", [sys.executable, "-X", "importtime", *EVENTSTORE[1:]]) as started:
        running = started.start("conversations", DATABASE_URL=library_url)
        until(lambda: f" {module}\n" in running.err, f"{module} is imported")
        assert running.interrupt() == INTERRUPTED
    assert not [line for line in running.err.splitlines() if not line.startswith("import time:")]


LONG = "x" * 64_000


@pytest.mark.slow
async def test_a_long_output_takes_the_memory_of_a_page(store: EventStore, database_url: str) -> None:
    conversation = conversation_uuid(store.tenant, "long")
    for _ in range(20):
        await store.append(conversation, [MessageAdded(role="user", content=LONG) for _ in range(50)])
    await catch_up(store)

    def run_and_measure(command: str) -> tuple[int, int]:
        measuring = (  # not getrusage: its maximum includes the process that started this one
            "import atexit, sys; from agent_manager.cli import main; status = open('/proc/self/status'); "
            "atexit.register(lambda: sys.stderr.write(status.read().split('VmHWM:')[1].split()[0])); main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", measuring, *command.split()],
            capture_output=True, env=child_environment(DATABASE_URL=database_url), timeout=120, check=True,
        )  # fmt: skip
        return len(done.stdout), int(done.stderr)

    for command in (
        "tail -n 1000", "tail -n 1000 --json", "history -n 1000 --json", "messages long", "messages long --json",
        "messages -n 1000 --json", "conversation long", "conversation long --json",
    ):  # fmt: skip
        printed, kilobytes = await asyncio.to_thread(run_and_measure, command)
        assert printed > 1000 * (len(LONG) if "--" in command or "tail" not in command else 200), command
        # The events alone are 64 MB, and took several times as much in lists of objects.
        assert kilobytes < 200_000, command


READERS = [
    ("head -1", f"messages {EVERYTHING}"), ("true", "tail --json"),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (("head -1", "conversations"), ("true", "--help"))),
]  # fmt: skip


def read_by(reader: str, command: str, url: str) -> str:
    """Return the standard error of a command while another program reads its output."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join(EVENTSTORE)} {command} | {reader}"],
        capture_output=True,
        text=True,
        env=child_environment(DATABASE_URL=url),
        timeout=60,
        check=False,
    )
    return done.stderr


@pytest.mark.parametrize(("reader", "command"), READERS)
@pytest.mark.slow
def test_a_reader_that_exits_early_is_not_an_error(
    clean_environment: None, library_url: str, reader: str, command: str
) -> None:
    assert read_by(reader, command, library_url) == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["tail -n 500 --json", "tail -n 500 --follow --json", "tail -n 500"])
async def test_a_reader_that_exits_during_a_long_output_is_not_an_error(
    store: EventStore, database_url: str, command: str
) -> None:
    await store.append(uuid4(), [MessageAdded(role="user", content="x" * 1000) for _ in range(500)])
    assert await asyncio.to_thread(read_by, "head -1", command, database_url) == ""


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param({"LANG": "C", "LC_ALL": "C"}, marks=pytest.mark.slow),
        pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
    ],
    ids=lambda environment: ",".join(environment),
)
@pytest.mark.parametrize("arguments", [("messages",), ("history", "--json")], ids=["table", "json"])
def test_a_terminal_without_unicode_is_not_an_error(
    clean_environment: None, library_url: str, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    command, *form = arguments
    done = run(command, EVERYTHING, *form, DATABASE_URL=library_url, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ol" in done.stdout


@pytest.mark.slow
def test_help_can_be_read_in_ascii(clean_environment: None) -> None:
    for command in ([], ["import"], ["project"]):
        done = run(*command, "--help", PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_file_env_in_the_working_directory_names_the_server(clean_environment: None, library_url: str) -> None:
    Path(".env").write_text(f"DATABASE_URL={library_url}\nEVENTSTORE_TENANT=another\nOTHER=thing\n")
    done = run("conversations", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["items"]] == ["Theirs"]
    overruled = run("conversations", "--json", EVENTSTORE_TENANT="nobody")
    assert json.loads(overruled.stdout) == {"items": [], "next": None}


@pytest.mark.slow
def test_a_chat_log_may_come_from_standard_input(clean_environment: None, database_url: str) -> None:
    line = '{"id": "a", "messages": [{"role": "user", "content": "olá"}]}\n'
    done = run("import", "-", stdin=line, DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 conversations, 1 messages" in done.stdout


@pytest.mark.slow
async def test_commands_wait_for_a_worker_that_is_running(
    started: Commands, store: EventStore, database_url: str
) -> None:
    workers = started.start("project", DATABASE_URL=database_url)
    workers.until_printed(" follow the log")
    for number in range(3):
        await store.append(uuid4(), [MessageAdded(role="user", content=f"written {number}") for _ in range(300)])
        for command in (("messages", "-n", "1"), ("search", f'"written {number}"')):
            listed = await asyncio.to_thread(run, *command, DATABASE_URL=database_url)
            assert f"written {number}" in listed.stdout
            assert "behind" not in listed.stderr
    os.kill(workers.pid, signal.SIGSTOP)
    try:
        await store.append(uuid4(), [MessageAdded(role="user", content="late")])
        late = await asyncio.to_thread(run, "messages", "--timeout", "0.5", DATABASE_URL=database_url)
    finally:
        os.kill(workers.pid, signal.SIGCONT)
    assert "late" not in late.stdout
    assert late.stderr.splitlines()[-1] == (
        "read tables are behind the log (conversations by 1 event(s), messages by 1 event(s)): "
        "a worker is running, and will apply it"
    )


@pytest.mark.slow
def test_workers_end_when_interrupted(started: Commands, database_url: str) -> None:
    workers = started.start("project", DATABASE_URL=database_url)
    workers.until_printed(" follow the log")
    assert workers.interrupt() == 0
    assert "Traceback" not in workers.err


@pytest.mark.slow
def test_up_on_a_named_server_applies_the_migrations(started: Commands, empty_database_url: str) -> None:
    up = started.start("up", DATABASE_URL=empty_database_url)
    up.until_printed("Ctrl-C")
    assert f"{len(list((TREE / 'db' / 'migrations').glob('*.sql')))} migration(s) applied just now" in up.out
    assert " follow the log" in up.out
    assert run("seed", DATABASE_URL=empty_database_url).returncode == 0
    assert up.interrupt() == 0
    assert up.warnings == []
