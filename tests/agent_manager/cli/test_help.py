"""Every command has a help text, the list of commands is complete, and a command imports only its own module."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from typing import Any

import pytest
import typer.main
from support.commandline import Eventstore
from support.environment import TREE, child_environment

from agent_manager.cli.main import app

pytestmark = pytest.mark.any_server


def commands() -> list[tuple[str, ...]]:
    """Return every command of the command line, as one types it."""
    return list(_below(typer.main.get_command(app), ()))


def _below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "commands"):
        yield path
        return
    for name, child in command.commands.items():
        yield from _below(child, (*path, name))


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


@pytest.mark.parametrize("path", [(), ("migrate",), ("keys",), ("users",), ("tenants",)], ids=" ".join)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_help_of_a_group_has_whole_sentences(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = eventstore(*path, "--help").out
    assert "..." not in out.partition("Options:")[2]
    sentences = re.split(r"\n(?:  \S+ +|\S|$)", out.partition("Options:")[2])
    assert all(sentence.rstrip().endswith((".", ":")) for sentence in sentences if sentence.strip())


def test_the_help_has_its_commands_in_groups(eventstore: Eventstore) -> None:
    headings = re.findall(r"^([A-Z]\w+):$", eventstore("--help").out, re.MULTILINE)
    assert headings == ["Options", "Start", "Read", "Write", "Operate", "Administer"]


@pytest.mark.parametrize("module", ["eventstore", "projections", "agent_manager"])
def test_the_version_is_that_of_the_distribution(eventstore: Eventstore, module: str) -> None:
    version = metadata.version("flowagents-eventstore")
    assert import_module(module).__version__ == version
    assert eventstore("--version").out == f"eventstore {version}\n"


@pytest.mark.parametrize("command", ["project", "status", "messages"])
@pytest.mark.slow
def test_a_command_imports_only_what_it_needs(command: str) -> None:
    script = "import sys; from agent_manager.cli.main import app; app(['%s', '--help'], standalone_mode=False)"
    ask = f"{script % command}; sys.exit(bool({{'fastapi', 'uvicorn', 'httpx'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", ask], env=child_environment(), capture_output=True, cwd=TREE, check=False
    )
    assert done.returncode == 0, done.stderr
