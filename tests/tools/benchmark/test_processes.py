"""Processes beside the benchmark's own."""

from __future__ import annotations

import asyncio

import pytest

from eventstore import EventStore, MessageAdded, Settings
from eventstore.errors import ServerError
from projections import Reader, wait_for
from tools.benchmark.processes import process, workers

CONVERSATION = "6f0b5ff0-5b6e-4c1e-9df7-2c4c8f3a5b10"


async def test_workers_follow_the_log_until_the_end_of_the_block(settings: Settings, store: EventStore) -> None:
    async with workers(settings) as child:
        result = await store.append(CONVERSATION, [MessageAdded(role="user", content="hello")])
        await child.wait_for(wait_for(store, result.position))
    assert [message.content for message in await Reader(store).messages(CONVERSATION)] == ["hello"]


async def test_a_listener_reports_a_notification(settings: Settings, store: EventStore) -> None:
    async with process(settings, "subscribe") as child:
        await store.append(CONVERSATION, [MessageAdded(role="user", content="hello")])
        assert int(await child.line()) > 0


async def test_a_process_that_cannot_start_is_an_error_with_its_output(
    clean_environment: None, empty_database_url: str
) -> None:
    with pytest.raises(ServerError, match="eventstore migrate up"):
        async with workers(Settings(database_url=empty_database_url)):
            pass


async def test_a_wait_for_a_process_that_has_ended_is_an_error(settings: Settings) -> None:
    async with workers(settings) as child:
        await child.stop()
        with pytest.raises(ServerError, match=r"its last error output: .* service_stopped"):
            await child.wait_for(_never())


async def _never() -> None:
    await asyncio.Event().wait()
