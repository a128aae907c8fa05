"""Every command has a help text, and the list of commands is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from support.commandline import Eventstore

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
