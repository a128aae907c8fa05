"""Fixtures of the tests of the event store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
from support.follow import Admin

import eventstore.notifier


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[Admin]:
    """A connection that does not belong to the store."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers do not poll: without a notification they wait forever."""
    monkeypatch.setattr(eventstore.notifier, "POLL_SECONDS", 10_000.0)
