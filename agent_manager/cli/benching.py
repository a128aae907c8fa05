"""The command ``bench``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agent_manager.bench import COMPARISONS, Bench, Comparison, Figure, Place, prepared_place
from agent_manager.bench.facts import not_durable, server_settings, versions
from agent_manager.bench.plotting import QUICK_WRITERS, WRITERS, Curve, checked_target, curves, draw
from agent_manager.bench.scale import FEWEST_RUNS, TRIAL, Scale
from agent_manager.cli.options import DataDir, Json, read_settings
from agent_manager.cli.output import errors, print_json, print_table
from agent_manager.cli.stopping import run_stoppable, terminated_in_order
from eventstore.database.translate import translated
from eventstore.errors import EventStoreError, InputError, UnsuitableServer

Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="NAME",
        help=f"Only this comparison; may be repeated: {', '.join(comparison.name for comparison in COMPARISONS)}.",
        show_default=False,
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="A trial: everything runs, briefly; its figures mean nothing.")]
Runs = Annotated[
    int | None,
    typer.Option("--runs", min=1, help="How often the sides are run in turn: at least 5 (5).", show_default=False),
]
Seconds = Annotated[
    float | None,
    typer.Option("--seconds", min=0.05, help="Of each measurement of throughput (2).", show_default=False),
]
Callers = Annotated[
    str | None,
    typer.Option("--callers", metavar="N,N,…", help="Numbers of concurrent callers (1,16,64,256).", show_default=False),
]
Events = Annotated[
    int | None,
    typer.Option("--events", min=1000, metavar="N", help="Length of the long log (1000000).", show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Also draw throughput against writers, all side by side, as .svg or .png.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(bench)


def bench(
    only: Only = None,
    quick: Quick = False,
    runs: Runs = None,
    seconds: Seconds = None,
    callers: Callers = None,
    events: Events = None,
    plot: Plot = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Measure the store beside the bare driver, and beside what one could take instead.

    Every figure is the ratio of two things that are run in turn, the median of all runs, with the lowest and highest
    beside it. It works on the server that the settings name, in a database or schema of its own, which is dropped in
    the end; nothing else is touched. A full round takes about half an hour. Whoever runs it should run nothing else.

    The peers are installed by pip install 'flowagents-eventstore[bench]'; those that are missing are left out.
    """
    chosen = _chosen(only or [])
    numbers = None if callers is None else _numbers(callers)
    said: dict[str, Any] = {"runs": runs, "seconds": seconds, "callers": numbers, "events": events}
    scale = replace(TRIAL if quick else Scale(), **{name: value for name, value in said.items() if value is not None})
    if scale.runs < FEWEST_RUNS and not quick:
        raise InputError(f"--runs {runs}: a figure is the median of at least {FEWEST_RUNS}; for a trial say --quick")
    target = None if plot is None else checked_target(plot)
    with terminated_in_order(), prepared_place(read_settings(data_dir)) as place:
        facts = {"versions": versions(), "server": server_settings(place)}
        _say_facts(place, facts)
        _check_durable(facts["server"], quick=quick)
        work, figures, found = run_stoppable(_measure(place, scale, chosen, plotted=target is not None))
    for words in work.skipped:
        errors.print(f"skipped {words}", soft_wrap=True, markup=False)
    for words in work.failed:
        errors.print(f"failed {words}", style="bold red", soft_wrap=True, markup=False)
    if target is not None:
        draw(found, target, _caption(facts))
    if as_json:
        shown = [figure.as_json() for figure in figures]
        more = {"skipped": work.skipped, "failed": work.failed, "curves": found}
        print_json({**facts, "quick": quick, "figures": shown, **more})
    else:
        _print(figures)
    if work.failed:
        raise typer.Exit(1)


async def _measure(
    place: Place, scale: Scale, chosen: list[Comparison], *, plotted: bool
) -> tuple[Bench, list[Figure], dict[str, Curve]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    figures: list[Figure] = []
    found: dict[str, Curve] = {}
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("preparing", total=len(chosen) + plotted)
        async with Bench(place, scale) as work:
            work.tell = lambda words: progress.update(bar, description=words)
            for comparison in chosen:
                try:
                    with translated():
                        measured = await comparison.run(work)
                    figures += measured
                    _say_figures(measured)
                except EventStoreError as error:  # what was measured until then is not thrown away
                    work.fail(f"{comparison.name}: {error}")
                progress.advance(bar)
            if plotted:
                found = await curves(work, QUICK_WRITERS if scale.quick else WRITERS)
            return work, figures, found


def _say_facts(place: Place, facts: dict[str, dict[str, str]]) -> None:
    errors.print(f"In a place of its own, dropped in the end: {place}", soft_wrap=True, markup=False)
    for values in facts.values():
        words = ", ".join(f"{name} {value}" for name, value in values.items())
        errors.print(words, soft_wrap=True, markup=False)


def _say_figures(figures: list[Figure]) -> None:
    """At once, so that whoever ends the command early has what was measured until then."""
    for figure in figures:
        errors.print(f"{figure.comparison}: {figure.what}: {_ratio(figure)}", soft_wrap=True, markup=False)


def _ratio(figure: Figure) -> str:
    return f"{figure.ratio:.2f} ({min(figure.ratios):.2f}–{max(figure.ratios):.2f})"


def _check_durable(settings: dict[str, str], *, quick: bool) -> None:
    off = not_durable(settings)
    if not off:
        return
    words = f"the server runs with {', '.join(off)} off, so that its appends are not durable"
    if not quick:
        raise UnsuitableServer(f"{words}: figures measured so would mean nothing; turn it on, or say --quick")
    errors.print(f"WARNING: {words}", style="bold red", soft_wrap=True, markup=False)


def _print(figures: list[Figure]) -> None:
    print_table(
        ("comparison", "what", ">ratio", ">spread", ">target", "reached", ">ours", ">other", "unit", "remark"),
        [
            (
                figure.comparison, figure.what, f"{figure.ratio:.2f}",
                f"{min(figure.ratios):.2f}–{max(figure.ratios):.2f}", figure.target, figure.reached,
                _amount(figure.ours), _amount(figure.other), figure.unit, figure.remark,
            )
            for figure in figures
        ],
        nothing="nothing was measured",
    )  # fmt: skip


def _amount(values: Any) -> str:
    value = median(values)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _caption(facts: dict[str, dict[str, str]]) -> str:
    server, client = facts["server"], facts["versions"]
    durable = ", ".join(f"{name} {server[name]}" for name in ("fsync", "synchronous_commit", "wal_sync_method"))
    return f"PostgreSQL {server['server_version']} ({durable})\nPython {client['python']}, {client['machine']}"


def _chosen(only: list[str]) -> list[Comparison]:
    names = [comparison.name for comparison in COMPARISONS]
    for name in only:
        if name not in names:
            raise InputError(f"--only {name}: no such comparison; there are {', '.join(names)}")
    return [comparison for comparison in COMPARISONS if not only or comparison.name in only]


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part) <= 1024 for part in parts):
        raise InputError(f"--callers {text}: give numbers from 1 to 1024, such as 1,16,64,256")
    return tuple(int(part) for part in parts)
