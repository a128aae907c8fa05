"""Writers that note what was acknowledged, and the comparison of that, and of a subscription, with the log."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from time import monotonic
from typing import Self
from uuid import UUID, uuid4

from psycopg.rows import dict_row

from eventstore import Append, AppendResult, Event, EventStore, MessageAdded, NewEvent
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import ConnectionLost, ServerUnreachable
from projections import rebuild, wait_for
from support.digest import event_digest
from support.folding import fold, stored
from support.follow import Follower
from support.scoped_queries import open_as
from support.waiting import until_async

_WRITERS, _SHARED = 12, 4
_MAX_PAUSE_SECONDS = 0.05
"""Between the appends of a writer, so that one machine can also copy a server meanwhile."""


class Writers:
    """Writers that repeat each append, under the same ids, until it is acknowledged.

    Each has a conversation of its own, in which it expects the version of its last acknowledgement, and writes to
    shared ones with the others.

    Attributes:
        acknowledged: the position and version of each event, as the acknowledgement has them.
        times: when each append was acknowledged.
        repeated: how many appends were sent again because their outcome was unknown.
    """

    def __init__(self, stores: list[EventStore]) -> None:
        self._stores = stores
        self._shared = [uuid4() for _ in range(_SHARED)]
        self._is_ending = False
        self.own = [uuid4() for _ in range(_WRITERS)]
        self.acknowledged: dict[UUID, tuple[int, int]] = {}
        self.times: list[float] = []
        self.repeated = 0
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(_WRITERS)]

    async def _write(self, number: int) -> None:
        chance, store, version, written = random.Random(number), self._stores[number % len(self._stores)], 0, 0
        while not self._is_ending:
            own = [NewEvent(_message(written + n)) for n in range(chance.choice((1, 1, 2, 5)))]
            written += len(own)
            await asyncio.sleep(chance.uniform(0, _MAX_PAUSE_SECONDS))
            appends = [Append(self.own[number], own, version)]
            if chance.random() < 0.5:
                appends.append(Append(chance.choice(self._shared), [NewEvent(_message(number))]))
            result = await self._until_acknowledged(store, appends)
            version += len(own)
            assert result.events[len(own) - 1].version == version
            events = [event for append in appends for event in append.events]
            for event, appended in zip(events, result.events, strict=True):
                assert isinstance(event, NewEvent)
                assert event.id == appended.event_id
                self.acknowledged[event.id] = appended.position, appended.version

    async def _until_acknowledged(self, store: EventStore, appends: list[Append]) -> AppendResult:
        while True:
            try:
                result = await store.append_all(appends)
            except (ConnectionLost, ServerUnreachable) as error:
                self.repeated += isinstance(error, ConnectionLost)
                await asyncio.sleep(0.05)
            else:
                self.times.append(monotonic())
                return result

    async def until_more(self, count: int) -> None:
        """Wait until so many further appends are acknowledged."""
        wanted = len(self.times) + count

        async def enough() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return len(self.times) >= wanted

        await until_async(enough, "appends are acknowledged", 60)

    async def end(self) -> None:
        """Stop after the acknowledgement of the last appends."""
        self._is_ending = True
        await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait(self._tasks)


def _message(number: int) -> MessageAdded:
    return MessageAdded(role="user", content=str(number))


def seconds_without_writes(times: list[float], killed_at: float) -> float:
    """Return the longest time between two acknowledgements of which the second came after an instant."""
    return max(later - earlier for earlier, later in pairwise(times) if later > killed_at)


async def compare_with_log(writers: Writers, follower: Follower, store: EventStore, url: str) -> list[Event]:
    """Fail unless the log holds each event that was acknowledged once, as it was acknowledged, and no other.

    The subscriber got exactly that; conversations have no holes; each writer's events are in its order; and every
    digest is that of the columns of its event. Return the events.
    """
    events = [event async for event in store.read_log()]
    assert {event.id: (event.position, event.version) for event in events} == writers.acknowledged
    assert len(events) == len(writers.acknowledged)
    assert await follower.take(len(events), patience=120) == events
    assert follower.is_empty()
    by_conversation: dict[UUID, list[Event]] = {}
    for event in events:
        by_conversation.setdefault(event.conversation_id, []).append(event)
    for found in by_conversation.values():
        assert [event.version for event in found] == list(range(1, len(found) + 1))
    for own in writers.own:
        contents = [event.content["content"] for event in by_conversation[own]]
        assert contents == [str(number) for number in range(len(contents))]
    with open_as(url) as connection:
        rows = connection.cursor(row_factory=dict_row).execute("SELECT * FROM events").fetchall()
        assert [row["position"] for row in rows if event_digest(row) != row["digest"]] == []
    return events


async def compare_with_read_tables(events: list[Event], store: EventStore, url: str) -> None:
    """Fail unless the read tables, once they are up to date, are those of the events, and equal to a rebuild."""
    await wait_for(store, events[-1].position, timeout=60)
    tables = stored(url)
    assert tables == fold(events)
    await rebuild(store)
    assert stored(url) == tables
