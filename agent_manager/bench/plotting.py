"""Throughput against the number of concurrent writers, for the store, the limit and every peer: a picture."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from agent_manager.bench.against_peers import opened_peer
from agent_manager.bench.appending import bare_side, connections_to_have
from agent_manager.bench.peers import PEERS, Known, PeerMissing
from agent_manager.bench.peers.known import EXTRA
from agent_manager.bench.rates import Throughput
from agent_manager.bench.work import Bench
from eventstore.errors import InputError

WRITERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
QUICK_WRITERS = (1, 4)
_RUNS = 3
_OURS, _LIMIT = "eventstore", "bare INSERT"

Curve = dict[int, float]


def checked_target(path: Path) -> Path:
    """The file to write.

    Raises:
        InputError: it is neither SVG nor PNG, or the library that draws is missing.
    """
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"--plot {path}: name a file that ends in .svg or .png")
    _library()
    return path


async def curves(bench: Bench, writers: tuple[int, ...]) -> dict[str, Curve]:
    """Medians of events a second, by number of writers; for all that is installed and works."""
    found: dict[str, Curve] = {_OURS: {}, _LIMIT: {}}
    for number in writers:
        connections = min(number, await connections_to_have(bench))
        async with bench.place.connections(connections) as opened:
            ours, limit = await _measured(bench, _OURS, [bench.appends(number), bare_side(bench, number, opened)])
        found[_OURS][number], found[_LIMIT][number] = ours, limit
    for known in PEERS:
        if curve := await _curve_of(bench, known, writers):
            found[known.name] = curve
    return found


async def _curve_of(bench: Bench, known: Known, writers: tuple[int, ...]) -> Curve:
    curve: Curve = {}
    try:
        for number in writers:
            async with opened_peer(bench, known, min(number, await connections_to_have(bench))) as peer:
                side = bench.rate(Throughput(number, peer.prepared, peer.drive, peer.begin))
                (curve[number],) = await _measured(bench, known.name, [side])
    except PeerMissing as missing:
        bench.skip(f"{known.name} in the plot: {missing}")
    except Exception as error:  # what somebody else's code raises is not for us to know
        bench.skip(f"{known.name} in the plot after {list(curve)}: {type(error).__name__}: {error}")
    return curve


async def _measured(bench: Bench, name: str, sides: list[Any]) -> list[float]:
    values = await bench.in_turn(f"the plot: {name}", sides, runs=1 if bench.scale.quick else _RUNS)
    return [median(some) for some in values]


def draw(found: dict[str, Curve], path: Path, caption: str) -> None:
    """Draws the curves on logarithmic axes."""
    figure = _library()("matplotlib.figure").Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    for name, curve in found.items():
        heavy = name == _OURS
        axes.plot(list(curve), list(curve.values()), marker="o", linewidth=3 if heavy else 1.3, label=name)
    ticks = sorted({number for curve in found.values() for number in curve})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(number) for number in ticks])
    axes.set_xlabel("concurrent writers in one process")
    axes.set_ylabel("durable events per second")
    axes.set_title(caption, fontsize=9)
    axes.grid(visible=True, which="both", alpha=0.25)
    figure.legend(loc="outside right center")
    figure.savefig(path)


def _library() -> Callable[[str], Any]:
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise InputError(f"--plot needs matplotlib: {EXTRA}") from error
    return importlib.import_module
