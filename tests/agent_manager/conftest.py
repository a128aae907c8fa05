"""The command line, called in the process of the tests."""

from __future__ import annotations

import pytest
from support.commandline import Eventstore, program_in_process

from agent_manager.cli import main


@pytest.fixture
def eventstore(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Eventstore:
    """Calls the command line in this process."""
    return program_in_process("eventstore", main, monkeypatch, capsys)


@pytest.fixture
def empty(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Eventstore:
    """The command line on a database with the schema and nothing in it."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    return eventstore
