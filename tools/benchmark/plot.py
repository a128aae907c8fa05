"""A plot of throughput by number of concurrent writers, for the store, the limit and every peer."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from eventstore.errors import InputError
from tools.benchmark.bare_insert import available_connections, bare_side
from tools.benchmark.measurement import Benchmark, Side
from tools.benchmark.peers import INSTALL, PEERS, PeerMissing, PeerSpec, appends_of, opened_peer

WRITERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
QUICK_WRITERS = (1, 4)
_RUNS = 3
_OURS, _LIMIT = "eventstore", "bare INSERT"

Curve = dict[int, float]


def checked_target(path: Path) -> Path:
    """Return the file to write.

    Raises:
        InputError: it is neither SVG nor PNG, or matplotlib is missing.
    """
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"--plot {path}: name a file that ends in .svg or .png")
    _matplotlib()
    return path


async def measure_curves(bench: Benchmark, writers: tuple[int, ...]) -> dict[str, Curve]:
    """Measure the median of events per second by number of writers, for everything that is installed and works."""
    found: dict[str, Curve] = {_OURS: {}, _LIMIT: {}}
    for number in writers:
        async with bench.workspace.connections(min(number, await available_connections(bench))) as connections:
            sides = [bench.appends(number), bare_side(bench, number, connections)]
            found[_OURS][number], found[_LIMIT][number] = await _measured(bench, _OURS, sides)
    for peer in PEERS:
        if curve := await _curve_of(bench, peer, writers):
            found[peer.name] = curve
    return found


async def _curve_of(bench: Benchmark, spec: PeerSpec, writers: tuple[int, ...]) -> Curve:
    curve: Curve = {}
    try:
        for number in writers:
            async with opened_peer(bench, spec, min(number, await available_connections(bench))) as peer:
                side = appends_of(bench, spec, peer, number)
                (curve[number],) = await _measured(bench, spec.name, [side])
    except PeerMissing as missing:
        bench.skip(f"{spec.name} in the plot: {missing}")
    except Exception as error:  # a peer may raise anything
        bench.skip(f"{spec.name} in the plot after {list(curve)}: {type(error).__name__}: {error}")
    return curve


async def _measured(bench: Benchmark, name: str, sides: list[Side]) -> list[float]:
    values = await bench.in_turn(f"the plot: {name}", sides, runs=1 if bench.scale.quick else _RUNS)
    return [median(some) for some in values]


def draw(found: dict[str, Curve], path: Path, caption: str) -> None:
    """Draw the curves on logarithmic axes."""
    figure = _matplotlib()("matplotlib.figure").Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    for name, curve in found.items():
        width = 3 if name == _OURS else 1.3
        axes.plot(list(curve), list(curve.values()), marker="o", linewidth=width, label=name)
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


def _matplotlib() -> Callable[[str], Any]:
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise InputError(f"--plot needs matplotlib: {INSTALL}") from error
    return importlib.import_module
