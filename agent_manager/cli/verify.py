"""The command verify."""

from __future__ import annotations

import typer
from rich.progress import TextColumn

from agent_manager.cli.options import DataDir, Json, LogFormat, LogLevel, read_settings, run
from agent_manager.cli.output import print_page, progress_bars, text
from agent_manager.cli.rebuild import Names
from eventstore import EventStore
from projections import load_projections, select_projections
from projections import verify as verify_tables
from projections.verify import verify_members


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
