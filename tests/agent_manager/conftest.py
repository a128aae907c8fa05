"""The command line, called in the process of the tests."""

from __future__ import annotations

import pytest
from support.commandline import Eventstore, program_in_process
from support.scoped_queries import connected_as

from agent_manager.cli import main


@pytest.fixture
def eventstore(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Eventstore:
    """Calls the command line in this process."""
    return program_in_process("eventstore", main, monkeypatch, capsys)


@pytest.fixture
def empty(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, database_url: str, own_tenant: str) -> Eventstore:
    """The command line on the test's database, for a tenant that has nothing in it."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("EVENTSTORE_TENANT", own_tenant)
    return eventstore


@pytest.fixture
def no_tenants(database_url: str) -> None:
    """Remove the tenants, users and keys that other tests have added to the same database."""
    with connected_as(database_url, "eventstore_owner") as owner:
        owner.execute("TRUNCATE identity_tenants CASCADE")
