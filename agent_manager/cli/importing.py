"""The command ``import``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from agent_manager.cli.migrating import Backups, FromAdk, FromBackup, FromUrl, ReportFile, import_from
from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import errors
from agent_manager.importing import ImportProgress, ImportReport, import_files
from agent_manager.importing.times import time_zone
from agent_manager.migrating.migration import BACKUPS
from eventstore import EventStore
from projections import catch_up


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("import")(import_)


def import_(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE...]", help="JSON Lines; - is standard input.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first malformed line.")] = False,
    from_url: FromUrl = None,
    from_adk: FromAdk = None,
    from_backup: FromBackup = None,
    backups: Backups = BACKUPS,
    as_json: Json = False,
    report: ReportFile = None,
    zone: Annotated[
        str | None,
        typer.Option(
            "--time-zone",
            metavar="ZONE",
            help="Of times without an offset, such as America/Sao_Paulo; UTC if left out.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Take in chat logs, or take over from an application or from google-adk.

    Chat logs are JSON Lines, a conversation a line, messages in the OpenAI chat shape.

    \b
      {"id": "a-1", "title": "Trains", "messages": [{"role": "user", "content": "hello"}, …]}

    Each message becomes an event, each tool call a task that its result completes. A member created_at, timestamp or
    time of a message is kept as the time when it happened. Importing a file again adds only what is new. A malformed
    line is reported with file, line and reason, the others go in, and the exit code is 1.

    --from-url takes over what an application of the demo's kind holds in memory, --from-adk what google-adk keeps in
    SQLite or PostgreSQL. First a backup is written into the --backups folder, then what is new goes in, then every
    conversation, message and task is compared with the backup. What differs is named, and the exit code is 1. If a
    conversation begins otherwise than the stored one of its id, nothing is written at all.

    google-adk's older tables (1.x, events in columns) hold local times without a zone. Then --time-zone is needed: the
    zone of the machine that the agents ran on.
    """
    settings = read_settings(data_dir, tenant)
    sources = [bool(paths), from_url is not None, from_adk is not None, from_backup is not None]
    if sum(sources) != 1:
        raise typer.BadParameter("give FILEs, or one of --from-url, --from-adk and --from-backup")
    if not paths:
        import_from(
            settings,
            url=from_url,
            adk=from_adk,
            backup=from_backup,
            backups=backups,
            as_json=as_json,
            report_file=report,
            zone=zone,
            tenant_is_explicit=tenant is not None,
        )
        return
    if as_json or report is not None:
        raise typer.BadParameter("--json and --report are for --from-url, --from-adk and --from-backup")

    of_times = UTC if zone is None else time_zone(zone)

    async def work(store: EventStore) -> None:
        report = await take_in(store, paths, tenant=tenant, strict=strict, zone=of_times)
        if report.problems:
            raise typer.Exit(1)

    run(work, settings)


async def take_in(
    store: EventStore, paths: Sequence[str], *, tenant: str | None, strict: bool, zone: tzinfo = UTC
) -> ImportReport:
    """Import files with a progress bar, print what was imported, and bring the read tables up with it."""
    columns = (TextColumn("importing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("importing", total=None)

        def show(now: ImportProgress) -> None:
            progress.update(bar, completed=now.bytes_read, total=now.total_bytes)

        report = await import_files(store, paths, tenant=tenant, strict=strict, zone=zone, progress=show)
    for problem in report.problems:
        typer.echo(f"{problem.file}:{problem.line}: {problem.reason}", err=True)
    typer.echo(
        f"{report.conversations:,} conversations, {report.messages:,} messages, {report.tasks:,} tasks: "
        f"{report.new_events:,} new events, {report.known_events:,} known already"
        + (f"; {len(report.problems):,} malformed line(s) left out" if report.problems else "")
    )
    with errors.status("updating the read tables …"):
        await catch_up(store)
    return report
