"""The command lines of the developers' programs, as the READMEs show them, can be typed."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from typing import Any

import pytest
import typer.main
from support.environment import TREE

pytestmark = pytest.mark.any_server

READMES = ["README.md", "tools/benchmark/README.md", "tools/checker/README.md"]
PROGRAMS = ["tools.benchmark", "tools.checker"]
LINES = [
    line
    for readme in READMES
    for line in re.findall(r"python -m tools\.[^`\n]+", (TREE / readme).read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("line", LINES)
def test_documented_command_lines_are_accepted(line: str) -> None:
    _, _, program, *arguments = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(import_module(f"{program}.__main__").app)
    command.make_context(program, arguments)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_has_help_and_a_readme_entry(program: str) -> None:
    command: Any = typer.main.get_command(import_module(f"{program}.__main__").app)
    assert "Options:" in command.get_help(command.make_context(program, [], resilient_parsing=True))
    assert any(f"python -m {program}" in line for line in LINES)
