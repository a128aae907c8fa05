"""The whole log, streamed, against ``eventsourcing``'s reading of notifications in sections."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import perf_counter
from typing import Any

from agent_manager.bench.against_peers import opened_peer
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.filling import fill
from agent_manager.bench.messages import conversations
from agent_manager.bench.peers import PEERS, PeerMissing
from agent_manager.bench.rates import no_collection
from agent_manager.bench.work import Bench, Side, opened
from eventstore import EventStore

_TARGET = Target(3)
_LARGE_SECTION, _DEFAULT_SECTION = 1000, 10
_PEER = next(known for known in PEERS if known.name == "eventsourcing")


async def log_reading(bench: Bench) -> list[Figure]:
    """Events a second, the same messages in both."""
    rows = bench.scale.rows
    try:
        async with opened_peer(bench, _PEER, 2) as peer, opened(bench.place.migrated("log")) as store:
            await fill(store, "log", rows)
            _fill_peer(peer, rows)
            sides = [_ours(store, rows), *_theirs(peer, rows)]
            ours, *others = await bench.in_turn("reading the log", sides, slices=1)
    except PeerMissing as missing:
        bench.skip(f"log-reading: {missing}")
        return []
    bench.place.drop_schema(store.settings.db_schema)
    what = f"read_log of {rows:,} events / eventsourcing's select_notifications in sections of"
    large, default, decoded = others
    return [
        Figure("log-reading", f"{what} {_LARGE_SECTION:,}", "events/s", ours, large, _TARGET),
        Figure("log-reading", f"{what} {_LARGE_SECTION:,}, their JSON decoded", "events/s", ours, decoded),
        Figure("log-reading", f"{what} {_DEFAULT_SECTION}, its default", "events/s", ours, default),
    ]


def _fill_peer(peer: Any, rows: int) -> None:
    for number in range(rows // _LARGE_SECTION):
        for messages in conversations(f"log/{number}", 10, _LARGE_SECTION // 10):
            peer.append([peer.prepared(message) for message in messages])


def _ours(store: EventStore, rows: int) -> Side:
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


def _theirs(peer: Any, rows: int) -> list[Side]:
    def read_all(section: int, use: Callable[[bytes], object]) -> Side:
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

    return [
        read_all(_LARGE_SECTION, lambda _: None),
        read_all(_DEFAULT_SECTION, lambda _: None),
        read_all(_LARGE_SECTION, json.loads),
    ]
