"""The commands rebuild, verify, pause, resume, parked and retry, which keep the read tables equal to the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.progress import TextColumn, TimeRemainingColumn
from typer import Argument, Option

from agent_manager.cli.options import DataDir, Json, LogFormat, LogLevel, Reason, read_settings, run
from agent_manager.cli.output import RowFormat, print_page, print_remark, print_rows, progress_bars, text
from eventstore import EventStore
from projections import (
    RebuildProgress,
    load_projections,
    read_parked,
    retry_parked,
    select_projections,
    undo_rebuild,
)
from projections import pause as pause_projections
from projections import rebuild as rebuild_tables
from projections import resume as resume_projections
from projections import verify as verify_tables
from projections.rebuild import JOBS
from projections.verify import verify_members

Names = Annotated[list[str] | None, Argument(metavar="NAME", help="Projections; all by default.")]
PausedNames = Annotated[list[str], Argument(metavar="NAME", help="Projections, as eventstore status lists them.")]
_SHOWN = 5


def rebuild(
    names: Names = None,
    undo: Annotated[bool, Option("--undo", help="Restore the tables that the last rebuild replaced.")] = False,
    jobs: Annotated[int, Option(min=1, max=16, help="Connections that fill the tables.")] = JOBS,
    accept_differences: Annotated[
        bool,
        Option(
            "--accept-differences",
            help="Replace the tables even if the definition of the projection is unchanged and its rows differ.",
        ),
    ] = False,
    reason: Reason = None,
    data_dir: DataDir = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Rebuild the read tables from the log, next to the present ones, and swap them.

    Reading and writing continue meanwhile. The new tables are compared with the present ones before they replace them;
    the replaced tables are kept for --undo. After an interruption the same command resumes the rebuild.
    """
    settings = read_settings(data_dir, reason=reason, log_format=log_format, log_level=log_level)
    projections = select_projections(names or [], load_projections(settings.projections))

    async def work(store: EventStore) -> None:
        if undo:
            await undo_rebuild(store, projections)
            typer.echo(f"restored {', '.join(p.name for p in projections)}")
            return
        with progress_bars(
            TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
        ) as progress:
            bars = {p.name: progress.add_task(p.name, total=None, rate="") for p in projections}

            def on_progress(now: RebuildProgress) -> None:
                bar = bars[now.projection]
                speed = progress.tasks[bar].speed
                progress.update(
                    bar,
                    description=f"{now.projection}: {now.doing}",
                    completed=now.position,
                    total=max(now.goal, 1),
                    rate=f"{speed:,.0f} events/s" if speed else "",
                )

            results = await rebuild_tables(
                store, projections, jobs=jobs, accept_differences=accept_differences, on_progress=on_progress
            )
        position = min((result.position for result in results), default=0)
        typer.echo(f"rebuilt {', '.join(p.name for p in projections)} up to position {position}")
        for result in results:
            for difference in result.differences[:_SHOWN]:
                print_remark(f"{result.projection}: changed: {difference}")
            if (more := len(result.differences) - _SHOWN) > 0:
                print_remark(f"{result.projection}: and {more} more conversations")

    run(work, settings)


def verify(
    names: Names = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Verify that the read tables, and who may see them, equal the log, or list the rows that differ.

    The log is replayed into temporary tables; reading and writing continue. Exit code 1: there are differences.
    """
    settings = read_settings(data_dir, log_format=log_format, log_level=log_level)
    projections = select_projections(names or [], load_projections(settings.projections))

    async def work(store: EventStore) -> None:
        with progress_bars(TextColumn("{task.percentage:>3.0f} %")) as progress:
            bars = {p.name: progress.add_task(p.name, total=None) for p in projections}
            results = await verify_tables(
                store,
                projections,
                on_progress=lambda name, position, goal: progress.update(
                    bars[name], completed=position, total=max(goal, 1)
                ),
            )
        if not names:
            results.append(await verify_members(store))
        if as_json:
            print_page(results)
        for result in results if not as_json else ():
            if not result.differences:
                typer.echo(f"{result.projection}: equal to the log up to position {result.position}")
                continue
            typer.echo(f"{result.projection}: {len(result.differences)} conversations differ from the log")
            for difference in result.differences:
                typer.echo(f"  {difference}")
            for row in result.rows:
                typer.echo(text(f"  {'+' if row.is_expected else '-'} {row.table} {row.row}"))
        if any(result.differences for result in results):
            raise typer.Exit(1)

    run(work, settings)


def pause(names: PausedNames, reason: Reason = None, data_dir: DataDir = None) -> None:
    """Pause projections: no worker changes their read tables until they are resumed.

    The log and all other projections go on. Reads that must include what was written after the pause fail meanwhile.
    """
    settings = read_settings(data_dir, reason=reason)
    projections = select_projections(names, load_projections(settings.projections))
    changed = run(lambda store: pause_projections(store, projections), settings)
    typer.echo(_changes("paused", changed, "paused already", [each.name for each in projections]))


def resume(names: Names = None, reason: Reason = None, data_dir: DataDir = None) -> None:
    """Resume paused projections: workers continue where they stopped."""
    settings = read_settings(data_dir, reason=reason)
    projections = select_projections(names or [], load_projections(settings.projections))
    changed = run(lambda store: resume_projections(store, projections), settings)
    typer.echo(_changes("resumed", changed, "not paused", [each.name for each in projections]))


def _changes(done: str, changed: Sequence[str], undone: str, wanted: Sequence[str]) -> str:
    others = [name for name in wanted if name not in changed]
    return "; ".join(f"{word} {', '.join(names)}" for word, names in ((done, changed), (undone, others)) if names)


def parked(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the conversations that a projection has parked because their events could not be applied, and why."""
    settings = read_settings(data_dir)
    print_rows(
        run(lambda store: read_parked(store, load_projections(settings.projections)), settings),
        RowFormat(
            ("projection", "conversation", ">version", ">position", "type", "parked", ">tries", "error"),
            lambda row: (
                row.projection, row.conversation_id, row.version, row.position, row.event_type,
                row.parked_at, row.tries, f"{row.sqlstate} {row.error}",
            ),
        ),
        nothing="nothing is parked",
        as_json=as_json,
    )  # fmt: skip


def retry(names: Names = None, reason: Reason = None, data_dir: DataDir = None) -> None:
    """Apply the events of parked conversations, after the cause is fixed. Exit code 1: some failed again."""
    settings = read_settings(data_dir, reason=reason)
    projections = select_projections(names or [], load_projections(settings.projections))
    result = run(lambda store: retry_parked(store, projections), settings)
    typer.echo(f"applied {result.applied}, still parked {result.parked}")
    if result.parked:
        raise typer.Exit(1)
