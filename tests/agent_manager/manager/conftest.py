"""Managers on the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.agents import agent

from agent_manager.factory import AsyncManager
from eventstore import EventStore


@pytest.fixture
async def manager(store: EventStore, works: bool) -> AsyncIterator[AsyncManager]:
    """A manager whose agent follows the text of the message."""
    async with AsyncManager(store, answer=agent, runs_worker=works) as manager:
        yield manager
