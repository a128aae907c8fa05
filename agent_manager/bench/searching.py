"""Searching a long log: how long a page takes, against the time it may take; and what that costs other projections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from math import ceil
from time import perf_counter
from typing import Any

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.filling import fill
from agent_manager.bench.growing import settle
from agent_manager.bench.messages import conversations
from agent_manager.bench.rates import no_collection, together
from agent_manager.bench.work import Bench, Side, opened
from eventstore import Append, EventStore, MessageAdded, NewEvent
from projections import Search, catch_up, named, rebuild

_EACH = 10_000
_CONVERSATIONS = 100
_LARGE = 5_000_000
"""From so many messages on a page may take a second, below a tenth of one."""
_SHARES = {"everywhere": 0.7, "fiftieth": 0.02, "seldom": 0.001}
"""Words that are put into so many of the messages."""
_SEARCH, _OTHERS = named(["search"]), named(["conversations", "messages", "tasks"])

_QUERIES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "rare words": [("onlyonce", {}), ("onlyonce", {"by": "time"}), ("seldom", {}), ("seldom", {"by": "time"})],
    "common words": [
        ("everywhere", {}), ("everywhere", {"by": "time"}), ("fiftieth", {}), ("fiftieth", {"by": "time"}),
        ("everywhere fiftieth", {}), ("everywhere -fiftieth", {}), ("everyw*", {}),
    ],
    "with filters": [
        ("everywhere", {"role": "assistant"}), ("fiftieth", {"role": "user"}), ("everywhere", {"actor": "inspector"}),
        ("everywhere", {"actor": "inspector", "by": "time"}), ("seldom", {"kind": "message", "language": "pt"}),
    ],
    "misspelt words": [("everwhere", {}), ("fiftieht", {})],
}  # fmt: skip


async def searching(bench: Bench) -> list[Figure]:
    """Pages of twenty with snippets, and following with a search beside it."""
    settings = bench.place.migrated("search")
    async with opened(settings) as store:
        await _fill(store, bench.scale.events, bench.tell)
        bench.tell(f"indexing {bench.scale.events:,} messages")
        begin = perf_counter()
        await rebuild(store, _SEARCH)  # following would index a long log row by row
        rate = bench.scale.events / (perf_counter() - begin)
        await settle(bench.place, settings.db_schema)
        limit = 1.0 if bench.scale.events >= _LARGE else 0.1
        sides = [_page(bench, Search(store), queries) for queries in _QUERIES.values()]
        measured = await bench.in_turn("searching", sides, slices=1)
    bench.place.drop_schema(settings.db_schema)
    remark = f"indexed at {rate:,.0f} messages a second"
    return [
        Figure(
            "searching",
            f"99 of 100 pages at {bench.scale.events:,} messages, {name} / {limit:g} s",
            "s",
            ours,
            [limit] * len(ours),
            Target(1.0, at_least=False),
            remark,
        )
        for name, ours in zip(_QUERIES, measured, strict=True)
    ] + [await _beside(bench)]


async def _beside(bench: Bench) -> Figure:
    """What the other projections lose while the search follows too, on a connection of its own."""
    settings = bench.place.migrated("beside")

    async with opened(settings) as store:

        async def alone(seed: str) -> float:
            await fill(store, f"alone/{seed}", bench.scale.rows)
            return await _rate(store, bench.scale.rows)

        async def beside(seed: str) -> float:
            await fill(store, f"beside/{seed}", bench.scale.rows)
            search = asyncio.create_task(catch_up(store, _SEARCH))
            try:
                return await _rate(store, bench.scale.rows)
            finally:
                await search

        await catch_up(store)
        ours, other = await bench.in_turn("following beside the search", [beside, alone], slices=1)
    bench.place.drop_schema(settings.db_schema)
    what = "events a second into the other tables while the search follows / alone"
    return Figure("searching", what, "events/s", ours, other, Target(0.67))


async def _rate(store: EventStore, events: int) -> float:
    begin = perf_counter()
    await catch_up(store, _OTHERS)
    return events / (perf_counter() - begin)


def _page(bench: Bench, search: Search, queries: Sequence[tuple[str, dict[str, Any]]]) -> Side:
    """Seconds that 99 of 100 pages do not exceed, the queries taking turns."""

    async def measure(_seed: str) -> float:
        taken: list[float] = []
        for query, filters in queries:
            await search.page(query, **filters)  # what is asked for the first time is read from disk
        with no_collection():
            for _ in range(bench.scale.rounds):
                for query, filters in queries:
                    begin = perf_counter()
                    await search.page(query, **filters)
                    taken.append(perf_counter() - begin)
        return sorted(taken)[ceil(len(taken) * 0.99) - 1]

    return measure


async def _fill(store: EventStore, events: int, tell: Callable[[str], None]) -> None:
    """Appends messages in Portuguese and English, some of which have the words that are searched for."""
    waiting = iter(range(0, events, _EACH))

    async def work() -> None:
        for begin in waiting:
            await store.append_all(_appends(begin, min(_EACH, events - begin)))
            tell(f"filling the log: {begin:,} of {events:,}")

    await together(work() for _ in range(2))


def _appends(begin: int, size: int) -> list[Append]:
    source = random.Random(f"searching/{begin}")
    made = conversations(f"searching/{begin}", _CONVERSATIONS, ceil(size / _CONVERSATIONS))
    appends: list[Append] = []
    for messages in made:
        events = []
        for message in messages:
            words = [word for word, share in _SHARES.items() if source.random() < share]
            if begin == 0 and not appends and message.version == 1:
                words.append("onlyonce")
            actor = "inspector" if source.random() < 0.001 else message.actor
            data = MessageAdded(role=message.role, content=" ".join([*words, message.text]))
            events.append(NewEvent(data, actor=actor))
        appends.append(Append(messages[0].conversation_id, events))
    return appends
