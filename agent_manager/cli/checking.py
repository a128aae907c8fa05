"""The command ``check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from agent_manager.cli.options import Json, read_settings
from agent_manager.cli.output import errors, print_json, text
from agent_manager.cli.stopping import run_stoppable
from eventstore.check import Check, CheckSettings, Fault, Report, parse_faults
from eventstore.check import Progress as CheckProgress
from eventstore.check.settings import READER, STORE
from eventstore.database.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(check)


def check(
    seconds: Annotated[float, typer.Option("--seconds", help="How long to write under faults.")] = 30,
    writers: Annotated[int, typer.Option("--writers", help="Processes that append, each with 8 coroutines.")] = 3,
    readers: Annotated[int, typer.Option("--readers", help="Processes that read.")] = 5,
    faults: Annotated[
        str | None,
        typer.Option(
            "--faults",
            help=f"Which, with commas between: {', '.join(Fault)}; or none. All that are possible, if left out.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the random choices.", show_default=False)] = None,
    store: Annotated[str, typer.Option("--store", metavar="MODULE:CLASS", help="The store to check.")] = STORE,
    reader: Annotated[str, typer.Option("--reader", metavar="MODULE:CLASS", help="The reader to check.")] = READER,
    restart_command: Annotated[
        str | None,
        typer.Option(
            "--restart-command", help="Kills the named server at once and starts it again.", show_default=False
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where the journals go, instead of a temporary folder.", show_default=False),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the schema and the journals.")] = False,
    as_json: Json = False,
) -> None:
    """Check that the log keeps its order and loses nothing: many writers and readers, under faults.

    It WRITES to the server: it makes a schema of its own, appends events to a log there, and drops the schema in the
    end. No other schema is touched. With no server named it starts an embedded one of its own in a temporary folder.

    On a named server it ends only its own sessions, and kills the server only by a --restart-command that you give.
    On a violation it shows the shortest history that proves it, and the exit code is 1. What each line of the report
    means stands in eventstore/check/README.md.
    """
    names = [name.strip() for name in (faults or "").split(",") if name.strip() not in ("", "none")]
    chosen = {} if seed is None else {"seed": seed}
    how = CheckSettings(
        seconds=seconds,
        writers=writers,
        readers=readers,
        faults=None if faults is None else parse_faults(names),
        store=store,
        reader=reader,
        restart_command=restart_command,
        folder=folder,
        keep=keep,
        **chosen,
    )
    report = _run(read_settings(), how)
    if as_json:
        print_json(report.values())
    else:
        for line in report.lines():
            typer.echo(text(line))
    if not report.is_clean:
        raise typer.Exit(1)


def _run(settings: Settings, how: CheckSettings) -> Report:
    """With a progress bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("starting", total=how.seconds, counts="")

        def show(now: CheckProgress) -> None:
            counts = f"{now.appends:,} appends, {now.deliveries:,} deliveries, {now.faults:,} faults"
            progress.update(bar, description=now.doing, completed=now.seconds, counts=counts if now.appends else "")

        return run_stoppable(Check(settings, how, show).run())
