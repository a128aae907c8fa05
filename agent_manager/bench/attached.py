"""Appends while the workers follow and a subscriber listens, each in a process of its own, against appends alone."""

from __future__ import annotations

from statistics import mean

from agent_manager.bench.children import listening, workers
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.work import Bench, Side
from eventstore.read import horizon
from projections import wait_for

_TARGET = Target(0.9)
_CALLERS = (1, 16, 64)
_CATCH_UP_SECONDS = 300


async def attached(bench: Bench) -> list[Figure]:
    """1, 16 and 64 callers; in each run first all of them with workers, then all without, each for a whole run."""
    chosen = _CALLERS[:2] if bench.scale.quick else _CALLERS
    sides = {callers: bench.appends(callers) for callers in chosen}
    with_workers: dict[int, list[float]] = {callers: [] for callers in chosen}
    alone: dict[int, list[float]] = {callers: [] for callers in chosen}
    for run in range(bench.scale.runs):
        bench.tell(f"with workers attached, run {run + 1} of {bench.scale.runs}")
        async with (
            workers(bench.place.settings) as following,
            listening(bench.place.settings, "follow"),
        ):
            for callers, side in sides.items():
                await following.runs_until(_caught_up(bench))
                with_workers[callers].append(await _measured(bench, side, f"{run}/{callers}"))
        for callers, side in sides.items():
            alone[callers].append(await _measured(bench, side, f"{run}/{callers}"))
    return [
        Figure(
            "attached", f"{callers} callers append with workers and a subscriber attached / without", "events/s",
            with_workers[callers], alone[callers], _TARGET,
        )
        for callers in chosen
    ]  # fmt: skip


async def _measured(bench: Bench, side: Side, seed: str) -> float:
    return mean([await side(f"{seed}/{part}") for part in range(bench.scale.slices)])


async def _caught_up(bench: Bench) -> None:
    """Until the workers have nothing left of what was appended before."""
    await wait_for(bench.store, await horizon(bench.store.parts.auditor), timeout=_CATCH_UP_SECONDS)
