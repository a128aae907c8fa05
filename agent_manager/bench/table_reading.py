"""Reading messages from the read table into typed objects, against the same SELECT by the bare driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from operator import attrgetter
from time import perf_counter
from uuid import UUID

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.messages import conversation
from agent_manager.bench.rates import no_collection
from agent_manager.bench.work import Bench, Side, opened
from eventstore import EventStore
from eventstore.database.queries import query
from projections import Message, Reader, catch_up

MESSAGES, PAGE = 500, 50
_TARGET = Target(1.5, at_least=False)
_SELECT = query("agent_manager.bench", "bare_messages")
_FIELDS = attrgetter(*(field.name for field in fields(Message)))


async def filled(store: EventStore, seed: str) -> UUID:
    """A conversation of 500 messages in the read tables."""
    messages = conversation(seed, MESSAGES)
    await store.append(messages[0].conversation_id, [message.event() for message in messages])
    await catch_up(store)
    return messages[0].conversation_id


async def table_reading(bench: Bench) -> list[Figure]:
    """A page of 50 out of the middle, and the whole conversation; as they come, and with all of each looked at."""
    settings = bench.place.migrated("tables")
    async with opened(settings) as store, bench.place.connections(1, settings.db_schema) as (connection,):
        conversation_id = await filled(store, "tables")
        reader = Reader(store)
        cursor = (await reader.messages(conversation_id, limit=MESSAGES // 2)).next

        async def page() -> list[Message]:
            return await reader.messages(conversation_id, limit=PAGE, after=cursor)

        async def whole() -> list[Message]:
            return await reader.messages(conversation_id)

        def bare(after: int, limit: int) -> Callable[[], Awaitable[int]]:
            async def act() -> int:
                given = (store.tenant, conversation_id, after, limit)
                return len(await (await connection.execute(_SELECT, given, prepare=True)).fetchall())

            return act

        figures = []
        for what, number, read, other in (
            (f"a page of {PAGE} messages", PAGE, page, bare(MESSAGES // 2, PAGE)),
            (f"a conversation of {MESSAGES} messages", MESSAGES, whole, bare(0, MESSAGES)),
        ):
            sides = [seconds_each(bench, act, number) for act in (_counted(read), _looked_at(read), other)]
            plain, looked_at, bare_select = await bench.in_turn(what, sides)
            words = f"{what} into typed objects / the same SELECT into tuples"
            figures += [
                Figure("tables", words, "s", plain, bare_select, _TARGET),
                Figure("tables", f"{words}, every field of each looked at", "s", looked_at, bare_select),
            ]
    bench.place.drop_schema(settings.db_schema)
    return figures


def _counted(read: Callable[[], Awaitable[list[Message]]]) -> Callable[[], Awaitable[int]]:
    async def act() -> int:
        return len(await read())

    return act


def _looked_at(read: Callable[[], Awaitable[list[Message]]]) -> Callable[[], Awaitable[int]]:
    async def act() -> int:
        return sum(1 for message in await read() if _FIELDS(message))

    return act


def seconds_each(bench: Bench, act: Callable[[], Awaitable[int]], rows: int) -> Side:
    """Seconds that one reading of so many rows takes, on average."""

    async def measure(_seed: str) -> float:
        assert await act() == rows
        with no_collection():
            begin = perf_counter()
            for _ in range(bench.scale.rounds):
                await act()
            return (perf_counter() - begin) / bench.scale.rounds

    return measure
