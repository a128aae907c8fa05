"""The commands rebuild, verify, parked and retry."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from agent_manager.cli.options import DataDir, Json, read_settings, run
from agent_manager.cli.output import errors, print_json, print_table, text
from eventstore import EventStore
from projections import RebuildProgress, load, named
from projections import parked as read_parked
from projections import rebuild as rebuild_tables
from projections import retry as retry_parked
from projections import undo as undo_rebuild
from projections import verify as verify_tables
from projections.rebuild import JOBS
from projections.verify import verify_members

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Of projections; all if left out.", show_default=False)
]
_SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (rebuild, verify, parked, retry):
        app.command()(command)


def rebuild(
    names: Names = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back the tables that the last rebuild replaced.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=16, help="Connections that fill.")] = JOBS,
    accept_differences: Annotated[
        bool,
        typer.Option(
            "--accept-differences", help="Swap also where the projection is the same and its rows are not: a repair."
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Fill the read tables anew from the log, beside the present ones, and swap them.

    Everybody goes on reading and writing meanwhile. The new tables are compared with the present ones before they
    take their place; those are kept for --undo. Interrupted, it resumes when it is typed again.
    """
    settings = read_settings(data_dir)
    projections = named(names or [], load(settings.projections))

    async def work(store: EventStore) -> None:
        if undo:
            await undo_rebuild(store, projections)
            typer.echo(f"took back {', '.join(p.name for p in projections)}")
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
            bars: dict[str, TaskID] = {p.name: progress.add_task(p.name, total=None, rate="") for p in projections}

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

            done = await rebuild_tables(
                store, projections, jobs=jobs, accept_differences=accept_differences, on_progress=on_progress
            )
        position = min((one.position for one in done), default=0)
        typer.echo(f"rebuilt {', '.join(p.name for p in projections)} up to position {position}")
        for one in done:
            for difference in one.differences[:_SHOWN]:
                errors.print(f"{one.projection}: changed: {difference}", soft_wrap=True, markup=False)
            if len(one.differences) > _SHOWN:
                errors.print(
                    f"{one.projection}: and {len(one.differences) - _SHOWN} more conversations", soft_wrap=True
                )

    run(work, settings)


def verify(names: Names = None, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Prove that the read tables, and who may see them, equal the log, or name the rows that do not.

    The log is replayed into temporary tables; nobody is stopped. Exits with 1 where there are differences.
    """
    settings = read_settings(data_dir)
    projections = named(names or [], load(settings.projections))

    async def work(store: EventStore) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
            bars: dict[str, TaskID] = {p.name: progress.add_task(p.name, total=None) for p in projections}
            found = await verify_tables(
                store,
                projections,
                on_progress=lambda name, position, goal: progress.update(
                    bars[name], completed=position, total=max(goal, 1)
                ),
            )
        if not names:
            found.append(await verify_members(store))
        if as_json:
            print_json(found)
        for one in found if not as_json else []:
            if not one.differences:
                typer.echo(f"{one.projection}: equal to the log up to position {one.position}")
                continue
            typer.echo(f"{one.projection}: {len(one.differences)} conversations differ from the log")
            for difference in one.differences:
                typer.echo(f"  {difference}")
            for row in one.rows:
                typer.echo(text(f"  {'+' if row.is_expected else '-'} {row.table} {row.row}"))
        if any(one.differences for one in found):
            raise typer.Exit(1)

    run(work, settings)


def parked(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the conversations that a projection does not go on with, and why."""
    settings = read_settings(data_dir)

    async def work(store: EventStore) -> None:
        rows = await read_parked(store, load(settings.projections))
        if as_json:
            print_json(rows)
        else:
            print_table(
                ("projection", "conversation", ">version", ">position", "type", "error", "parked", ">tries"),
                [
                    (
                        p.projection, p.conversation_id, p.version, p.position, p.event_type,
                        f"{p.sqlstate} {p.error}", p.parked_at, p.tries,
                    )
                    for p in rows
                ],
                nothing="nothing is parked",
            )  # fmt: skip

    run(work, settings)


def retry(names: Names = None, data_dir: DataDir = None) -> None:
    """Apply the events of parked conversations, after the cause is mended. Exits with 1 where some fail again."""
    settings = read_settings(data_dir)
    projections = named(names or [], load(settings.projections))

    async def work(store: EventStore) -> None:
        done = await retry_parked(store, projections)
        typer.echo(f"applied {done.applied}, still parked {done.parked}")
        if done.parked:
            raise typer.Exit(1)

    run(work, settings)
