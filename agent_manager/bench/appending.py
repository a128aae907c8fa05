"""Appends of single messages against the bare insert: one caller, and many callers in one process."""

from __future__ import annotations

from agent_manager.bench import bare
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.pgbench import pgbench, program
from agent_manager.bench.place import APPLICATION
from agent_manager.bench.rates import Throughput, driven
from agent_manager.bench.work import Bench, Side
from eventstore.database.connection import Connection

_TARGETS = {16: Target(3), 256: Target(5)}
_BARE_CONNECTIONS = 16
_SPARE_CONNECTIONS = 25
"""Of the server's, for the store's own and for other people."""


async def one_caller(bench: Bench) -> list[Figure]:
    """One caller against one connection."""
    async with bench.place.connections(1) as connections:
        sides = [bench.appends(1), bare_side(bench, 1, connections), *_pgbench(bench, 1)]
        ours, other, *more = await bench.in_turn("one caller", sides)
    return [
        Figure("one-caller", "append / bare INSERT over one connection", "events/s", ours, other, Target(0.85)),
        *(
            Figure("one-caller", "append / the same INSERT by pgbench -c 1", "events/s", ours, values)
            for values in more
        ),
    ]


async def many_callers(bench: Bench) -> list[Figure]:
    """Many callers in this process against bare inserts of single rows over 16 connections, or over more."""
    return [figure for callers in bench.scale.callers if callers > 1 for figure in await _against_bare(bench, callers)]


async def _against_bare(bench: Bench, callers: int) -> list[Figure]:
    own = min(callers, await connections_to_have(bench))
    few = min(callers, _BARE_CONNECTIONS)
    async with bench.place.connections(max(own, few)) as connections:
        limits = [bare_side(bench, callers, connections[:few])]
        if own > few:
            limits.append(bare_side(bench, callers, connections[:own]))
        sides = [bench.appends(callers), *limits, *_pgbench(bench, few)]
        ours, *measured = await bench.in_turn(f"{callers} callers", sides)
    others, more = measured[: len(limits)], measured[len(limits) :]
    faster = [max(values) for values in zip(*others, strict=True)]
    remark = f"bare over {few} connections"
    if own > few:
        each = " and ".join(
            f"{sum(values) / len(values):,.0f}/s over {number}"
            for values, number in zip(others, (few, own), strict=True)
        )
        remark = f"the faster of bare with {each} connections"
    what = f"{callers} concurrent appends / bare INSERTs"
    by_pgbench = f"{callers} concurrent appends / the same INSERT by pgbench -c {few}"
    return [
        Figure("many-callers", what, "events/s", ours, faster, _TARGETS.get(callers), remark),
        *(Figure("many-callers", by_pgbench, "events/s", ours, values) for values in more),
    ]


def _pgbench(bench: Bench, clients: int) -> list[Side]:
    """As information, where it is installed."""
    path = program()
    if path is None:
        bench.skip("pgbench: it is not on PATH")
        return []
    return [pgbench(bench, path, clients)]


def bare_side(bench: Bench, callers: int, connections: list[Connection]) -> Side:
    """Bare inserts by so many callers over these connections."""
    kind = bare.OwnConnections if callers == len(connections) else bare.SharedConnections
    return bench.rate(Throughput(callers, bare.row, driven(kind(connections).append)))


async def connections_to_have(bench: Bench) -> int:
    """How many connections the server has left for one side."""
    async with bench.connection() as connection:
        found = await connection.execute(
            "SELECT current_setting('max_connections')::integer - count(*)"
            "  FROM pg_stat_activity a WHERE a.application_name <> %s",
            (APPLICATION,),
        )
        row = await found.fetchone()
    assert row is not None
    return max(1, int(str(row[0])) - _SPARE_CONNECTIONS)
