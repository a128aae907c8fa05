"""The developers' programs, called in the process of the tests and in processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from support.commandline import Program, program_in_process
from support.processes import Commands, commands


@pytest.fixture
def program(
    request: pytest.FixtureRequest,
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
) -> Program:
    """The program that the test module names in ``PROGRAM``, on a database with the schema and nothing in it."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    main = import_module(f"{request.module.PROGRAM}.__main__").main
    return program_in_process(request.module.PROGRAM, main, monkeypatch, capsys)


@pytest.fixture
def programs(request: pytest.FixtureRequest, clean_environment: None, tmp_path: Path) -> Iterator[Commands]:
    """The same program in processes of its own; those that still run at the end of the test are stopped."""
    with commands(tmp_path / "output", program=[sys.executable, "-m", request.module.PROGRAM]) as running:
        yield running
