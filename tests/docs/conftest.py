"""The command line on an empty database, and commands in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.commandline import Eventstore, program_in_process
from support.servers import DatabaseServer

from agent_manager.cli import main


@pytest.fixture
def page_url(server: DatabaseServer) -> Iterator[str]:
    """The URL of a database for one page, with the schema and nothing in it."""
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def eventstore(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], page_url: str
) -> Eventstore:
    """The command line, called in this process, on the page's database."""
    monkeypatch.setenv("DATABASE_URL", page_url)
    return program_in_process("eventstore", main, monkeypatch, capsys)
