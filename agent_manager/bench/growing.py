"""What an append costs in a long log and in a long conversation, against a short log and a new conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from time import perf_counter
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.filling import fill, lengthen
from agent_manager.bench.messages import Message, streams
from agent_manager.bench.place import Place
from agent_manager.bench.rates import no_collection
from agent_manager.bench.work import Bench, Prepared, Side, opened
from eventstore import EventStore
from eventstore.database.queries import query

_TARGET = Target(1.1, at_least=False)
_TABLES = query("agent_manager.bench", "tables")
_WARM_UP = 10
"""Appends before each measurement that do not count."""


async def growing(bench: Bench) -> list[Figure]:
    """The long log, and the long conversation."""
    return [await _log(bench), await _conversation(bench)]


async def _log(bench: Bench) -> Figure:
    scale = bench.scale
    long_settings, short_settings = bench.place.migrated("long"), bench.place.migrated("short")
    async with opened(long_settings) as long, opened(short_settings) as short:
        await fill(short, "short", scale.short_log)
        await fill(
            long, "long", scale.events, lambda done: bench.tell(f"filling the log: {done:,} of {scale.events:,}")
        )
        for settings in (long_settings, short_settings):
            await settle(bench.place, settings.db_schema)
        ours, other = await bench.in_turn("the long log", [_cost(bench, long), _cost(bench, short)])
    for settings in (long_settings, short_settings):
        bench.place.drop_schema(settings.db_schema)
    what = f"an append at {scale.events:,} events / one at {scale.short_log:,}"
    return Figure("growing", what, "s", ours, other, _TARGET)


async def _conversation(bench: Bench) -> Figure:
    length = bench.scale.long_conversation
    bench.tell(f"filling a conversation: {length:,} events")
    long = UUID(str((await lengthen(bench.store, "long", length)).conversation_id))
    await settle(bench.place, bench.place.schema)
    ours, other = await bench.in_turn(
        "the long conversation", [_cost(bench, bench.store, lambda: long), _cost(bench, bench.store, uuid4)]
    )
    what = f"an append to a conversation of {length:,} events / one to a new conversation"
    return Figure("growing", what, "s", ours, other, _TARGET)


async def settle(place: Place, schema: str) -> None:
    """What the server would do behind our back after a large import is done before anything is measured."""
    async with place.connections(1, schema) as (connection,):
        tables = await (await connection.execute(_TABLES, {"schema": schema})).fetchall()
        for (table,) in tables:
            await connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(schema, table)))
        try:
            await connection.execute("CHECKPOINT")
        except psycopg.errors.InsufficientPrivilege:
            return  # then it comes when it comes


def _cost(bench: Bench, store: EventStore, conversation: Callable[[], UUID] | None = None) -> Side:
    """Seconds of one append by one caller, on average.

    Args:
        conversation: into which all messages of a measurement go; each into its own if left out.
    """
    number = bench.scale.rounds * 5

    async def measure(seed: str) -> float:
        (stream,) = streams(seed, 1)
        one = conversation() if conversation is not None else None
        plan = list(_prepared(islice(stream, number + _WARM_UP), one))
        for conversation_id, events in plan[:_WARM_UP]:
            await store.append(conversation_id, events)
        del plan[:_WARM_UP]
        with no_collection():
            begin = perf_counter()
            for conversation_id, events in plan:
                await store.append(conversation_id, events)
            return (perf_counter() - begin) / number

    return measure


def _prepared(messages: Iterator[Message], conversation_id: UUID | None) -> Iterator[Prepared]:
    for message in messages:
        yield conversation_id or message.conversation_id, [message.event()]
