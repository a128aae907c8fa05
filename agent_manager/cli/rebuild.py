"""The command rebuild."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import TextColumn, TimeRemainingColumn
from typer import Argument, Option

from agent_manager.cli.options import DataDir, LogFormat, LogLevel, Reason, read_settings, run
from agent_manager.cli.output import print_remark, progress_bars
from eventstore import EventStore
from projections import RebuildProgress, load_projections, select_projections, undo_rebuild
from projections import rebuild as rebuild_tables
from projections.rebuild import JOBS

Names = Annotated[list[str] | None, Argument(metavar="NAME", help="Projections; all by default.")]
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
