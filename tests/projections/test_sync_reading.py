"""Synchronous code reads as asynchronous code does."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from inspect import iscoroutinefunction
from uuid import uuid4

import pytest

from eventstore import EventStore, MessageAdded, Settings, SyncEventStore, TaskCreated
from eventstore.errors import NotCaughtUp, StoreClosed
from projections import Reader, SyncReader, catch_up


async def _catch_up(settings: Settings) -> None:
    async with EventStore(settings) as store:
        await catch_up(store)


def test_every_read_is_also_synchronous() -> None:
    reads = {name for name, member in vars(Reader).items() if iscoroutinefunction(member) and name[0] != "_"}
    assert reads == {name for name in vars(SyncReader) if name in vars(Reader) and name[0] != "_"}


def test_pages_are_read_from_any_thread(settings: Settings) -> None:
    conversation = uuid4()
    with SyncEventStore(settings) as store:
        messages = [MessageAdded(role="user", content=str(number)) for number in range(5)]
        result = store.append(conversation, [*messages, TaskCreated(task_id=uuid4(), description="x")], actor="ana")
        with pytest.raises(NotCaughtUp):
            SyncReader(store, timeout=0).messages(conversation, at_least=result.position)
        asyncio.run(_catch_up(settings))
        reader = SyncReader(store)

        def read(_: int) -> list[str]:
            first = reader.messages(conversation, limit=2, at_least=result.position)
            return [message.content for message in (*first, *reader.messages(conversation, after=first.next))]

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(read, range(8))) == [["0", "1", "2", "3", "4"]] * 8
        assert [row.id for row in reader.conversations(actor="ana")] == [conversation]
        assert reader.conversation(conversation).message_count == 5
        assert len(reader.tasks()) == 1
        assert len(reader.history(conversation)) == 6
        assert len(reader.conversation_at(conversation, version=3).messages) == 3
    with pytest.raises(StoreClosed):
        reader.messages(conversation)
