"""Reads against the same SELECT by the driver, and against peers: events, messages, a conversation, the whole log."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import fields
from operator import attrgetter
from time import perf_counter
from typing import Any
from uuid import UUID

from eventstore import EventStore
from eventstore.database.queries import query
from projections import ConversationCache, Message, Reader, catch_up
from tools.benchmark.measurement import Benchmark, Figure, Side, Target, no_collection
from tools.benchmark.messages import conversation, conversations, fill
from tools.benchmark.peers import PEERS, opened_peer

MESSAGES, PAGE = 500, 50
_LARGE_SECTION, _DEFAULT_SECTION = 1000, 10
_FIELDS = attrgetter(*(field.name for field in fields(Message)))


async def events(bench: Benchmark) -> list[Figure]:
    """Compare reading a conversation of 500 events into typed objects with the same SELECT into tuples."""
    messages = conversation("reading", MESSAGES)
    conversation_id = messages[0].conversation_id
    await bench.store.append(conversation_id, [message.event() for message in messages])
    async with bench.connection() as connection:

        async def ours() -> int:
            return len([event async for event in bench.store.read(conversation_id)])

        async def with_data() -> int:
            return len([event.data async for event in bench.store.read(conversation_id)])

        async def other() -> int:
            select, key = query("tools.benchmark", "bare_read"), (bench.store.tenant, conversation_id)
            return len(await (await connection.execute(select, key, prepare=True)).fetchall())

        sides = [bench.seconds_each(act, MESSAGES) for act in (ours, with_data, other)]
        plain, typed, bare = await bench.in_turn("reading", sides)
    what = f"{MESSAGES} events read into typed objects / the same SELECT into tuples"
    return [
        Figure("reading", what, "s", plain, bare, Target(1.5, at_least=False)),
        Figure("reading", f"{what}, the typed content of each made", "s", typed, bare),
    ]


async def _filled_conversation(store: EventStore, seed: str) -> UUID:
    """Bring a conversation of 500 messages into the read tables."""
    messages = conversation(seed, MESSAGES)
    await store.append(messages[0].conversation_id, [message.event() for message in messages])
    await catch_up(store)
    return messages[0].conversation_id


async def messages(bench: Benchmark) -> list[Figure]:
    """Compare reading messages from the read table into typed objects with the same SELECT into tuples.

    A page of 50 from the middle, and the whole conversation; each also with every field of every message read.
    """
    figures = []
    with bench.workspace.migrated("tables") as settings:
        async with EventStore(settings) as store, bench.workspace.connections(1, settings.db_schema) as (connection,):
            conversation_id = await _filled_conversation(store, "tables")
            reader = Reader(store)
            cursor = (await reader.messages(conversation_id, limit=MESSAGES // 2)).next

            async def page() -> list[Message]:
                return await reader.messages(conversation_id, limit=PAGE, after=cursor)

            async def whole() -> list[Message]:
                return await reader.messages(conversation_id)

            def bare(after: int, limit: int) -> Callable[[], Awaitable[int]]:
                async def act() -> int:
                    select = query("tools.benchmark", "bare_messages")
                    given = (store.tenant, conversation_id, after, limit)
                    return len(await (await connection.execute(select, given, prepare=True)).fetchall())

                return act

            for what, number, read, other in (
                (f"a page of {PAGE} messages", PAGE, page, bare(MESSAGES // 2, PAGE)),
                (f"a conversation of {MESSAGES} messages", MESSAGES, whole, bare(0, MESSAGES)),
            ):
                sides = [bench.seconds_each(act, number) for act in (_counted(read), _fields_read(read), other)]
                plain, fields_read, bare_select = await bench.in_turn(what, sides)
                words = f"{what} into typed objects / the same SELECT into tuples"
                figures += [
                    Figure("tables", words, "s", plain, bare_select, Target(1.5, at_least=False)),
                    Figure("tables", f"{words}, every field of each looked at", "s", fields_read, bare_select),
                ]
    return figures


def _counted(read: Callable[[], Awaitable[list[Message]]]) -> Callable[[], Awaitable[int]]:
    async def act() -> int:
        return len(await read())

    return act


def _fields_read(read: Callable[[], Awaitable[list[Message]]]) -> Callable[[], Awaitable[int]]:
    async def act() -> int:
        return sum(1 for message in await read() if _FIELDS(message))

    return act


async def sessions(bench: Benchmark) -> list[Figure]:
    """Compare reading a conversation of 500 messages, from the table and from the cache, with ADK's get_session."""
    google_adk = next(peer for peer in PEERS if peer.name == "google-adk")
    with bench.workspace.migrated("sessions") as settings:
        async with opened_peer(bench, google_adk, 1) as peer, EventStore(settings) as store:
            conversation_id = await _filled_conversation(store, "sessions")
            reader = Reader(store)
            cache = ConversationCache(reader)

            async def from_table() -> int:
                return len(await reader.messages(conversation_id))

            async def from_cache() -> int:
                return len((await cache.conversation(conversation_id)).messages)

            acts = [from_table, from_cache, await _get_session(peer)]
            sides = [bench.seconds_each(act, MESSAGES) for act in acts]
            table, cached, other = await bench.in_turn("sessions", sides)
    theirs = f"{google_adk.name}'s get_session of {MESSAGES} events"
    ours = f"a conversation of {MESSAGES} messages"
    return [
        Figure("sessions", f"{ours} / {theirs}", "s", table, other, Target(0.2, at_least=False)),
        Figure("sessions", f"the same from the cache / {theirs}", "s", cached, other),
    ]


async def _get_session(peer: Any) -> Callable[[], Awaitable[int]]:
    """Fill a session with the same messages, and return a function that reads it."""
    messages = conversation("sessions", MESSAGES)
    await peer.begin(messages)
    for message in messages:
        await peer.append(peer.prepare(message))

    async def act() -> int:
        return len(await peer.read_session(messages[0].conversation_id))

    return act


async def log(bench: Benchmark) -> list[Figure]:
    """Compare streaming the whole log with ``eventsourcing`` reading its notifications in sections."""
    rows = bench.scale.rows
    eventsourcing = next(peer for peer in PEERS if peer.name == "eventsourcing")
    with bench.workspace.migrated("log") as settings:
        async with opened_peer(bench, eventsourcing, 2) as peer, EventStore(settings) as store:
            await fill(store, "log", rows)
            for number in range(rows // _LARGE_SECTION):
                for some in conversations(f"log/{number}", 10, _LARGE_SECTION // 10):
                    peer.insert([peer.prepare(message) for message in some])
            sides = [
                _read_log(store, rows),
                _read_sections(peer, rows, _LARGE_SECTION, lambda _: None),
                _read_sections(peer, rows, _DEFAULT_SECTION, lambda _: None),
                _read_sections(peer, rows, _LARGE_SECTION, json.loads),
            ]
            ours, large, default, decoded = await bench.in_turn("reading the log", sides, slices=1)
    what = f"read_log of {rows:,} events / eventsourcing's select_notifications in sections of"
    return [
        Figure("log-reading", f"{what} {_LARGE_SECTION:,}", "events/s", ours, large, Target(3)),
        Figure("log-reading", f"{what} {_LARGE_SECTION:,}, their JSON decoded", "events/s", ours, decoded),
        Figure("log-reading", f"{what} {_DEFAULT_SECTION}, its default", "events/s", ours, default),
    ]


def _read_log(store: EventStore, rows: int) -> Side:
    async def measure(_seed: str) -> float:
        with no_collection():
            begin = perf_counter()
            read = 0
            async for _ in store.read_log():
                read += 1
            seconds = perf_counter() - begin
        assert read == rows
        return read / seconds

    return measure


def _read_sections(peer: Any, rows: int, section: int, use: Callable[[bytes], object]) -> Side:
    async def measure(_seed: str) -> float:
        with no_collection():
            begin = perf_counter()
            read = 0
            for notification in peer.read(section):
                use(notification.state)
                read += 1
            seconds = perf_counter() - begin
        assert read == rows
        return read / seconds

    return measure
