"""Words for the tests of the command line: what it did, and what stands in the database that they share."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import pytest

from agent_manager.logs import OWN_LOGGERS

EVERYTHING = "everything"
"""The id that its client gave to the conversation with an event of each kind."""
TASK = UUID("7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e")
STRANGE = "\x1b[31mred\x07 [bold]no markup[/bold] \x9b31m\x7f :smile: [/] end"
"""A text that a terminal must not get as it is, and that rich would take for markup."""


@dataclass(frozen=True)
class Result:
    """The outcome of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard output, without the spaces at their ends."""
        return [line.rstrip() for line in self.out.splitlines()]


Program: TypeAlias = Callable[..., Result]
Eventstore: TypeAlias = Program


def program_in_process(
    name: str, main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    """Return a function that calls the main function of a program in this process."""

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capsys.readouterr()
        code = 0
        on_interrupt = signal.getsignal(signal.SIGINT)
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            with suppress(ValueError):  # a thread cannot set it, and main did not
                signal.signal(signal.SIGINT, on_interrupt)  # main expects the process to end
            for handler in set(root.handlers).difference(handlers):
                handler.close()  # writes what is left
            root.handlers[:] = handlers
            root.setLevel(level)
            for logger in OWN_LOGGERS:
                logging.getLogger(logger).setLevel(logging.NOTSET)
        output = capsys.readouterr()
        return Result(code, output.out, output.err)

    return call


def rows_of(program: Program, *arguments: str) -> list[dict[str, Any]]:
    """Return the items of the page that a command prints as JSON."""
    return page_of(program, *arguments)[0]


def page_of(program: Program, *arguments: str) -> tuple[list[dict[str, Any]], str | None]:
    """Return the items of the page that a command prints as JSON, and the cursor of the next."""
    result = program(*arguments, "--json")
    assert (result.code, result.err) == (0, "")
    page = json.loads(result.out)
    assert set(page) >= {"items", "next"}
    return page["items"], page["next"]
