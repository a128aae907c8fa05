"""The program ``python -m tools.benchmark``."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psycopg
import typer
from rich.progress import MofNCompleteColumn, TimeElapsedColumn
from typer import Option

from agent_manager.cli.main import run_program
from agent_manager.cli.options import DataDir, Json, read_settings, run_stoppable
from agent_manager.cli.output import print_json, print_remark, print_table, progress_bars
from eventstore.errors import EventStoreError, InputError, UnsuitableServer, translated
from tools.benchmark import COMPARISONS, Comparison
from tools.benchmark.measurement import MIN_RUNS, TRIAL, Benchmark, Figure, Scale
from tools.benchmark.peers import PEERS, PeerMissing
from tools.benchmark.plot import QUICK_WRITERS, WRITERS, Curve, checked_target, draw, measure_curves
from tools.benchmark.workspace import Workspace, prepared_workspace

_PACKAGES = ("flowagents-eventstore", "psycopg", "psycopg-pool", "pydantic")
_SERVER_SETTINGS = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "wal_level",
    "max_connections", "shared_buffers", "max_wal_size", "commit_delay",
)  # fmt: skip
_REQUIRED_FOR_DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command()
def benchmark(
    only: Annotated[
        list[str] | None,
        Option(metavar="NAME", help=f"Run only this comparison; repeatable: {', '.join(COMPARISONS)}."),
    ] = None,
    quick: Annotated[
        bool, Option("--quick", help="A trial: everything runs, briefly; its figures mean nothing.")
    ] = False,
    runs: Annotated[int | None, Option(min=1, help="Runs of each side, in turn: at least 5 (5).")] = None,
    seconds: Annotated[float | None, Option(min=0.05, help="Duration of each throughput measurement (2).")] = None,
    callers: Annotated[str | None, Option(metavar="N,N,…", help="Numbers of concurrent callers (1,16,64,256).")] = None,
    events: Annotated[int | None, Option(min=1000, metavar="N", help="Length of the long log (1000000).")] = None,
    plot: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Also draw throughput by number of writers, for the store and its peers, as .svg or .png.",
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Measure the store against the bare driver and against alternatives.

    Every figure is the ratio of two sides that run in turn: the median of all runs, with the lowest and the highest.
    The benchmark works on the configured server, in a database or schema of its own, which it drops at the end;
    it touches nothing else. A full round takes more than an hour; run nothing else meanwhile.

    Install the peers by pip install '.[bench]'; those that are missing are skipped.
    """
    for name in only or ():
        if name not in COMPARISONS:
            raise InputError(f"--only {name}: unknown comparison; choose among {', '.join(COMPARISONS)}")
    chosen = {name: comparison for name, comparison in COMPARISONS.items() if not only or name in only}
    given: dict[str, Any] = {
        "runs": runs,
        "seconds": seconds,
        "callers": None if callers is None else _parse_callers(callers),
        "events": events,
    }
    scale = replace(TRIAL if quick else Scale(), **{name: value for name, value in given.items() if value is not None})
    if scale.runs < MIN_RUNS and not quick:
        raise InputError(f"--runs {runs}: a figure is the median of at least {MIN_RUNS}; for a trial use --quick")
    target = None if plot is None else checked_target(plot)
    with _sigterm_interrupts(), prepared_workspace(read_settings(data_dir)) as workspace:
        facts = {"versions": versions(), "server": server_settings(workspace)}
        _print_facts(workspace, facts)
        _require_durability(facts["server"], quick=quick)
        bench, figures, found = run_stoppable(_measure(workspace, scale, chosen, plots=target is not None))
    for reason in bench.skipped:
        print_remark(f"skipped {reason}")
    for reason in bench.failed:
        print_remark(f"failed {reason}", style="bold red")
    if target is not None:
        draw(found, target, _caption(facts))
    if as_json:
        results = {"figures": [figure.as_json() for figure in figures], "curves": found}
        print_json({**facts, "quick": quick, **results, "skipped": bench.skipped, "failed": bench.failed})
    else:
        _print_figures(figures)
    if bench.failed:
        raise typer.Exit(1)


def main() -> None:
    """Run the benchmark."""
    run_program(app, "python -m tools.benchmark")


async def _measure(
    workspace: Workspace, scale: Scale, chosen: dict[str, Comparison], *, plots: bool
) -> tuple[Benchmark, list[Figure], dict[str, Curve]]:
    """Run the comparisons with a progress bar; print each figure at once, so that an interrupted run has shown some."""
    figures: list[Figure] = []
    found: dict[str, Curve] = {}
    with progress_bars(MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("preparing", total=len(chosen) + plots)
        async with Benchmark(workspace, scale) as bench:
            bench.report = lambda step: progress.update(bar, description=step)
            for name, comparison in chosen.items():
                try:
                    with translated():
                        measured = await comparison(bench)
                except PeerMissing as missing:
                    bench.skip(f"{name}: {missing}")
                except EventStoreError as error:  # earlier figures are kept
                    bench.failed.append(f"{name}: {error}")
                else:
                    figures += measured
                    for figure in measured:
                        line = f"{figure.comparison}: {figure.what}: {figure.ratio:.2f} ({_spread(figure)})"
                        print_remark(line)
                progress.advance(bar)
            if plots:
                found = await measure_curves(bench, QUICK_WRITERS if scale.quick else WRITERS)
            return bench, figures, found


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too, so that the workspace is dropped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def versions() -> dict[str, str]:
    """Return the versions of Python, the machine and the packages, those of the peers included."""
    libpq = psycopg.pq.version()
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "libpq": f"{libpq // 10000}.{libpq % 10000}",
        "psycopg implementation": psycopg.pq.__impl__,
    }
    for package in (*_PACKAGES, *dict.fromkeys(package for peer in PEERS for package in peer.packages)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def server_settings(workspace: Workspace) -> dict[str, str]:
    """Return the server's settings that decide durability and speed, as a session in the workspace sees them."""
    with psycopg.connect(workspace.url) as connection:
        rows = connection.execute(
            "SELECT s.name, current_setting(s.name) FROM pg_settings s WHERE s.name = ANY (%s)",
            [list(_SERVER_SETTINGS)],
        ).fetchall()
    found: dict[str, str] = dict(rows)
    return {name: found[name] for name in _SERVER_SETTINGS}


def not_durable(settings: dict[str, str]) -> list[str]:
    """Return the settings under which an acknowledged append may be lost."""
    return [name for name in _REQUIRED_FOR_DURABILITY if settings[name] == "off"]


def _require_durability(settings: dict[str, str], *, quick: bool) -> None:
    if off := not_durable(settings):
        problem = f"the server runs with {', '.join(off)} off, so its appends are not durable"
        if not quick:
            raise UnsuitableServer(f"{problem} and the figures would mean nothing: turn it on, or use --quick")
        print_remark(f"WARNING: {problem}", style="bold red")


def _print_facts(workspace: Workspace, facts: dict[str, dict[str, str]]) -> None:
    print_remark(f"Workspace, dropped at the end: {workspace}")
    for values in facts.values():
        line = ", ".join(f"{name} {value}" for name, value in values.items())
        print_remark(line)


def _print_figures(figures: list[Figure]) -> None:
    print_table(
        ("comparison", "what", ">ratio", ">spread", ">target", "reached", ">ours", ">other", "unit", "remark"),
        [
            (
                figure.comparison, figure.what, f"{figure.ratio:.2f}", _spread(figure), figure.target, figure.reached,
                _amount(figure.ours), _amount(figure.other), figure.unit, figure.remark,
            )
            for figure in figures
        ],
        nothing="nothing was measured",
    )  # fmt: skip


def _spread(figure: Figure) -> str:
    return f"{min(figure.ratios):.2f}–{max(figure.ratios):.2f}"


def _amount(values: Sequence[float]) -> str:
    value = median(values)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _caption(facts: dict[str, dict[str, str]]) -> str:
    server, client = facts["server"], facts["versions"]
    durability = ", ".join(f"{name} {server[name]}" for name in ("fsync", "synchronous_commit", "wal_sync_method"))
    return f"PostgreSQL {server['server_version']} ({durability})\nPython {client['python']}, {client['machine']}"


def _parse_callers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part) <= 1024 for part in parts):
        raise InputError(f"--callers {text}: give numbers from 1 to 1024, such as 1,16,64,256")
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    main()
