"""The command line on an empty database, and commands in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commandline import Eventstore, called_here
from support.processes import Commands, commands


@pytest.fixture
def eventstore(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database_url: str
) -> Eventstore:
    """The command line, called in this process, on a database with the schema and nothing in it."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    return called_here(monkeypatch, capsys)


@pytest.fixture
def started(clean_environment: None, tmp_path: Path) -> Iterator[Commands]:
    """Starts commands; those that still run at the end of the test are ended."""
    with commands(tmp_path / "output") as running:
        yield running
