"""LangGraph's own suite for checkpointers passes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

pytest.importorskip("langgraph.checkpoint.conformance")

from langgraph.checkpoint.conformance import checkpointer_test, validate

from agent_manager.adapters.langgraph import EventStoreSaver
from eventstore import EventStore

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]


async def test_a_saver_has_all_capabilities_that_langgraph_checks(store: EventStore) -> None:
    @checkpointer_test(name="EventStoreSaver")
    async def saver() -> AsyncIterator[EventStoreSaver]:
        yield EventStoreSaver(store)

    report = await validate(saver)

    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert not failures
    assert report.conformance_level() == "FULL"
    assert all(result.detected for result in report.results.values())
    assert sum(result.tests_passed for result in report.results.values()) >= 80
