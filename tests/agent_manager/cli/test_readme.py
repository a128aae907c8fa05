"""The README and the command line belong together: every command stands there, and what stands there works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer.main
from support.adk import make_sqlite
from support.commandline import Eventstore
from support.demoapp import Manager, serve
from support.environment import TREE, child_environment
from support.processes import Commands

from agent_manager.cli.main import app

README = (TREE / "README.md").read_text(encoding="utf-8")
KEEP_RUNNING = ("up", "project")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell_lines() -> list[list[str]]:
    """The arguments of every call of the command in the README's shell blocks."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    calls = [call for line in lines for call in re.split(r"&&|\|\||[;|]", _without_comment(line))]
    words = [shlex.split(call) for call in calls]
    return [call[1:] for call in words if call and call[0] == "eventstore"]


def _without_comment(line: str) -> str:
    return shlex.join(shlex.split(line, comments=True)).replace("'&&'", "&&").replace("'|'", "|").replace("';'", ";")


def commands() -> list[tuple[str, ...]]:
    """Every command of the command line, as one types it."""
    return list(_below(typer.main.get_command(app), ()))


def _below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "commands"):
        yield path
        return
    for name, child in command.commands.items():
        yield from _below(child, (*path, name))


def parse(arguments: list[str]) -> None:
    """Fails unless the command and its options exist."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    if rest not in (["--help"], ["-h"]):
        command.make_context("eventstore", rest)


@pytest.mark.parametrize("path", [(), ("migrate",), *commands()], ids=" ".join)
def test_every_command_has_help(eventstore: Eventstore, path: tuple[str, ...]) -> None:
    result = eventstore(*path, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Usage: ")
    assert " ".join(path) in result.out.splitlines()[0]
    assert len(result.out.splitlines()) > 4


def test_the_help_lists_every_command(eventstore: Eventstore) -> None:
    listed = eventstore("--help").out
    for path in commands():
        assert re.search(rf"^  {path[0]} ", listed, re.MULTILINE), path


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_stands_in_the_readme(path: tuple[str, ...]) -> None:
    assert re.search(rf"\beventstore\s+{' '.join(path)}\b", README), f"README.md does not mention {' '.join(path)}"


def test_the_readme_has_commands_and_examples() -> None:
    assert len(shell_lines()) >= 5
    assert blocks("python")


@pytest.mark.parametrize("arguments", shell_lines(), ids=" ".join)
def test_every_command_line_in_the_readme_can_be_typed(arguments: list[str]) -> None:
    parse(arguments)


def test_every_option_in_the_readme_exists() -> None:
    known = {"--help"}
    for path in commands():
        command: Any = typer.main.get_command(app)
        for name in path:
            command = command.commands[name]
        known |= {option for parameter in command.params for option in parameter.opts}
    mentioned = set(re.findall(r"`(?:[a-z ]+)?(--[a-z-]+)", README))
    assert mentioned
    assert mentioned <= known


@pytest.fixture
def application() -> Iterator[str]:
    """Where an application of the demo's kind answers, as in the README; and google-adk's sessions beside it."""
    manager = Manager()
    manager.create_conversation("a")
    with serve(0, manager) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_command_lines_in_the_readme_do_what_they_say(empty: Eventstore, application: str) -> None:
    make_sqlite(Path("sessions.db"), "2.x")
    examples = [json.dumps(json.loads(line)) for block in blocks("json") for line in block.splitlines()]
    for file in {word for call in shell_lines() for word in call if word.endswith(".jsonl")}:
        Path(file).write_text("\n".join(examples) + "\n", encoding="utf-8")
    for arguments in shell_lines():
        if arguments[0] in KEEP_RUNNING:
            continue
        result = empty(*(application if word == "http://localhost:12000" else word for word in arguments))
        if arguments[:2] == ["migrate", "down"] and result.code == 0:
            assert empty("migrate", "up").code == 0
        if arguments[:2] == ["migrate", "down"] and "would destroy" in result.err:
            continue  # the keys that the README has made by then
        assert result.code == 0, (arguments, result.err)
        assert result.out or arguments[0] not in ("search", "messages", "conversations"), arguments


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_examples_run(started: Commands, database_url: str, number: int) -> None:
    workers = started.start("project", DATABASE_URL=database_url)
    workers.until_said("follow the log")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks("python")[number]],
        capture_output=True,
        text=True,
        timeout=60,
        env=child_environment(DATABASE_URL=database_url),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_sql_examples_run(empty: Eventstore, database_url: str) -> None:
    assert empty("seed").code == 0
    with psycopg.connect(database_url) as connection:
        for block in blocks("sql"):
            for statement in filter(str.strip, block.split(";")):
                assert connection.execute(statement.encode()).fetchall(), statement
