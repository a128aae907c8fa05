"""Sixteen callers: the store against what a developer could take instead, each appending the same messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_manager.bench.figures import Figure
from agent_manager.bench.peers import PEERS, Known, Peer, PeerMissing
from agent_manager.bench.rates import Throughput
from agent_manager.bench.work import Bench

CALLERS = 16


async def against_peers(bench: Bench) -> list[Figure]:
    """A figure for each peer that is installed and works."""
    figures = [await _against(bench, known) for known in PEERS]
    return [figure for figure in figures if figure is not None]


async def _against(bench: Bench, known: Known) -> Figure | None:
    try:
        async with opened_peer(bench, known, CALLERS) as peer:
            theirs = bench.rate(Throughput(CALLERS, peer.prepared, peer.drive, peer.begin))
            ours, other = await bench.in_turn(known.name, [bench.appends(CALLERS), theirs])
    except PeerMissing as missing:
        bench.skip(f"{known.name}: {missing}")
        return None
    except Exception as error:  # what somebody else's code raises is not for us to know
        bench.skip(f"{known.name}: failed: {type(error).__name__}: {error}")
        return None
    what = f"{CALLERS} concurrent appends / {known.name}'s {known.what}"
    return Figure("peers", what, "events/s", ours, other, known.target)


@asynccontextmanager
async def opened_peer(bench: Bench, known: Known, connections: int) -> AsyncIterator[Peer]:
    """A peer in a schema of its own, which is dropped afterwards."""
    peer = known.make()
    schema = bench.place.own_schema(f"peer_{known.name.replace('-', '_')}")
    try:
        try:
            await peer.open(bench.place, schema, connections)
            yield peer
        finally:
            await peer.close()
    finally:
        bench.place.drop_schema(schema)
