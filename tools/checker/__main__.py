"""The program ``python -m tools.checker``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TaskProgressColumn, TextColumn
from typer import Option

from agent_manager.cli.main import run_program
from agent_manager.cli.options import Json, read_settings, run_stoppable
from agent_manager.cli.output import print_json, progress_bars, text
from eventstore import Settings
from tools.checker.check import Check
from tools.checker.check import Progress as CheckProgress
from tools.checker.report import Report
from tools.checker.settings import READER, STORE, CheckSettings, Fault, parse_faults

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command()
def check(
    seconds: Annotated[float, Option(help="Duration of the writes under faults.")] = 30,
    writers: Annotated[int, Option(help="Processes that append, each with 8 coroutines.")] = 3,
    readers: Annotated[int, Option(help="Processes that read.")] = 5,
    faults: Annotated[
        str | None, Option(help=f"Comma-separated: {', '.join(Fault)}; or none. Default: all that are possible.")
    ] = None,
    seed: Annotated[int | None, Option(help="Of the random choices.")] = None,
    store: Annotated[str, Option(metavar="MODULE:CLASS", help="The store to check.")] = STORE,
    reader: Annotated[str, Option(metavar="MODULE:CLASS", help="The reader to check.")] = READER,
    restart_command: Annotated[
        str | None, Option(help="Kills the named server immediately and starts it again.")
    ] = None,
    folder: Annotated[Path | None, Option(help="Where to keep the journals; default: a temporary folder.")] = None,
    keep: Annotated[bool, Option("--keep", help="Keep the schema and the journals.")] = False,
    as_json: Json = False,
) -> None:
    """Check that the log keeps its order and loses nothing: many writers and readers, under faults.

    The check WRITES to the server: it creates a schema of its own, appends events to a log there, and drops the schema
    at the end. It touches no other schema. If no server is configured, it starts an embedded one in a temporary folder.

    On a configured server it terminates only its own sessions, and kills the server only by the --restart-command.
    If it finds a violation, it shows the shortest history that proves it, and the exit code is 1. The lines of the
    report are explained in tools/checker/README.md.
    """
    names = [name.strip() for name in (faults or "").split(",") if name.strip() not in ("", "none")]
    settings = CheckSettings(
        seconds=seconds,
        writers=writers,
        readers=readers,
        faults=None if faults is None else parse_faults(names),
        store=store,
        reader=reader,
        restart_command=restart_command,
        folder=folder,
        keep=keep,
        **({} if seed is None else {"seed": seed}),
    )
    report = _run(read_settings(), settings)
    if as_json:
        print_json(report.values())
    else:
        for line in report.lines():
            typer.echo(text(line))
    if not report.is_clean:
        raise typer.Exit(1)


def _run(server: Settings, settings: CheckSettings) -> Report:
    """Run the check with a progress bar."""
    with progress_bars(TaskProgressColumn(), TextColumn("{task.fields[counts]}")) as progress:
        bar = progress.add_task("starting", total=settings.seconds, counts="")

        def show(now: CheckProgress) -> None:
            counts = f"{now.appends:,} appends, {now.deliveries:,} deliveries, {now.faults:,} faults"
            progress.update(bar, description=now.step, completed=now.seconds, counts=counts if now.appends else "")

        return run_stoppable(Check(server, settings, show).run())


def main() -> None:
    """Run the checker."""
    run_program(app, "python -m tools.checker")


if __name__ == "__main__":
    main()
