"""The commands import and rollback."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.status import Status

from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import errors, print_json, text
from agent_manager.cli.signals import run_stoppable
from agent_manager.importers import ImportReport, import_backup, import_files, migrate
from agent_manager.importers.a2a_demo import EndpointSource
from agent_manager.importers.backup import SUFFIX, BackupSource, check_tenant, choose_backup, open_backup, write_private
from agent_manager.importers.google_adk import AdkSource
from agent_manager.importers.migration import BACKUPS, MigrationReport
from agent_manager.importers.rollback import roll_back
from agent_manager.importers.rollback_criteria import check_criteria, has_baseline, measure, write_baseline
from agent_manager.importers.source import Source, time_zone
from agent_manager.importers.verify import Report
from eventstore import EventStore, Settings
from eventstore.scope import checked_tenant
from projections import catch_up

RESTORE_FILE = f"restore{SUFFIX}"

Backups = Annotated[Path, typer.Option("--backups", metavar="FOLDER", help="The folder for backups of sources.")]
ReportFile = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write the report to it as JSON.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("import")(import_)
    app.command()(rollback)


def import_(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="JSON Lines; - is standard input.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first malformed line.")] = False,
    from_url: Annotated[
        str | None,
        typer.Option(
            "--from-url", metavar="URL", help="An application with the endpoints of the A2A demo.", show_default=False
        ),
    ] = None,
    from_adk: Annotated[
        str | None,
        typer.Option("--from-adk", metavar="URL", help="A database of google-adk sessions.", show_default=False),
    ] = None,
    from_backup: Annotated[
        Path | None,
        typer.Option("--from-backup", metavar="FILE", help="A backup that an import wrote.", show_default=False),
    ] = None,
    backups: Backups = BACKUPS,
    as_json: Json = False,
    report: ReportFile = None,
    zone: Annotated[
        str | None,
        typer.Option(
            "--time-zone",
            metavar="ZONE",
            help="The zone of times without an offset, such as America/Sao_Paulo; UTC by default.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Import chat logs, or migrate from an in-memory application or from google-adk.

    Chat logs are JSON Lines: one conversation per line, messages in the OpenAI chat format.

    \b
      {"id": "a-1", "title": "Trains", "messages": [{"role": "user", "content": "hello"}, …]}

    Each message becomes an event, each tool call a task that its result completes. A member created_at, timestamp or
    time of a message is kept as the time when it happened. Importing a file again adds only what is new. A malformed
    line is reported with file, line and reason, the others are imported, and the exit code is 1.

    --from-url migrates what an application like the A2A demo holds in memory, --from-adk what google-adk stores in
    SQLite or PostgreSQL. A backup is written to the --backups folder, what is new is stored, and every conversation,
    message and task is compared with the backup. If something differs, it is reported, and the exit code is 1. If the
    store holds another conversation under an id of the source, nothing is written at all.

    Older tables of google-adk (1.x, events in columns) hold local times without a zone. They require --time-zone: the
    zone of the machine that the agents ran on.
    """
    settings = read_settings(data_dir, tenant)
    if sum((bool(paths), from_url is not None, from_adk is not None, from_backup is not None)) != 1:
        raise typer.BadParameter("give FILEs, or one of --from-url, --from-adk and --from-backup")
    if paths and (as_json or report is not None):
        raise typer.BadParameter("--json and --report are for --from-url, --from-adk and --from-backup")
    if from_backup is not None and zone is not None:
        raise typer.BadParameter("--time-zone: a backup keeps the zone that it was taken with")
    known_zone = UTC if zone is None else time_zone(zone)
    if paths:

        async def work(store: EventStore) -> None:
            if (await import_chat_logs(store, paths, tenant=tenant, strict=strict, zone=known_zone)).problems:
                raise typer.Exit(1)

        run(work, settings)
    elif from_backup is not None:
        into = None if tenant is None else settings.tenant
        _print_report(run_stoppable(_import_backup(settings, from_backup, into, backups)), as_json, report)
    else:
        _print_report(run_stoppable(_migrate(settings, from_url, from_adk, zone, backups)), as_json, report)


async def import_chat_logs(
    store: EventStore, paths: Sequence[str], *, tenant: str | None, strict: bool, zone: tzinfo = UTC
) -> ImportReport:
    """Import files with a progress bar, print the result, and bring the read tables up to date."""
    columns = (TextColumn("importing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("importing", total=None)

        def show(now: ImportReport) -> None:
            progress.update(bar, completed=now.bytes_read, total=now.total_bytes)

        report = await import_files(store, paths, tenant=tenant, strict=strict, zone=zone, progress=show)
    for problem in report.problems:
        typer.echo(str(problem), err=True)
    typer.echo(
        f"{report.conversations:,} conversations, {report.messages:,} messages, {report.tasks:,} tasks: "
        f"{report.new_events:,} new events, {report.known_events:,} known already"
        + (f"; {len(report.problems):,} malformed line(s) left out" if report.problems else "")
    )
    with errors.status("updating the read tables …"):
        await catch_up(store)
    return report


async def _import_backup(settings: Settings, file: Path, tenant: str | None, backups: Path) -> MigrationReport:
    """Import a backup; ``tenant`` is the one that the user named, None if they named none."""
    with errors.status("…") as status:
        on_step = _shown_on(status)
        async with EventStore(settings) as store:
            backup = open_backup(file)
            if tenant is None or backup.tenant == tenant:
                return await import_backup(backup, store, on_step=on_step)
            source = BackupSource(backup)
            return await migrate(source, store, backups=backups, time_zone=backup.time_zone, on_step=on_step)


async def _migrate(
    settings: Settings, url: str | None, adk: str | None, zone: str | None, backups: Path
) -> MigrationReport:
    with errors.status("…") as status:
        on_step = _shown_on(status)
        async with EventStore(settings) as store:
            source: Source = EndpointSource(url) if url is not None else AdkSource(str(adk), zone)
            async with source:
                report = await migrate(source, store, backups=backups, time_zone=zone, on_step=on_step)
            if url is not None and not has_baseline(backups, store.tenant, url):
                on_step("measuring the latency, for a rollback")
                write_baseline(await measure(url, store.tenant), backups)
            return report


def _shown_on(status: Status) -> Callable[[str], None]:
    return lambda step: status.update(f"{step} …")


def rollback(
    check: Annotated[bool, typer.Option("--check", help="Only report whether there is a reason to roll back.")] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Only record the latency of the application at --url.")
    ] = False,
    url: Annotated[
        str | None, typer.Option("--url", help="The URL of the application, once it has started.", show_default=False)
    ] = None,
    stop_command: Annotated[
        str | None, typer.Option("--stop-command", help="Shell command that stops the application.", show_default=False)
    ] = None,
    start_command: Annotated[
        str | None,
        typer.Option(
            "--start-command",
            help="Shell command that starts the in-memory application; its output goes to application.log beside FILE.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long each command may take.")] = 120,
    backup: Annotated[
        Path | None,
        typer.Option("--backup", help="The backup; by default the tenant's newest in the folder.", show_default=False),
    ] = None,
    backups: Backups = BACKUPS,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help=f"The file to restore; by default {RESTORE_FILE} in the folder."),
    ] = None,
    as_json: Json = False,
    report: ReportFile = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Roll back to the in-memory application: stop it, restore, verify, start it.

    The backup of the import and everything written to the store since are merged into a file that
    agent_manager.importers.restore_into(manager) loads. The merged data is compared with both before anything is
    stopped. The start command finds the name of the file in EVENTSTORE_RESTORE. With --url everything that the started
    application serves is compared, too. The store is only read. Exit code 1: something is missing, and is listed.

    Only backups of this tenant are used, and with --url only those of that application; if they are of several sources,
    choose one with --backup.

    --check compares the store, and what the application at --url serves, with the backup, and the latency of its basic
    operations with the baseline that import --from-url recorded. Exit code 1: there is a reason to roll back.
    """
    settings = read_settings(data_dir, tenant)
    tenant = checked_tenant(settings.tenant)
    if baseline:
        if url is None:
            raise typer.BadParameter("--baseline: give the application's --url")
        path = write_baseline(run_stoppable(measure(url, tenant)), backups)
        typer.echo(f"recorded in {path}")
        return

    async def work() -> Report:
        if backup is None:
            found = choose_backup(backups, tenant, url, may_have_moved=check)
        else:
            found = check_tenant(open_backup(backup), tenant)
        with errors.status("…") as status:
            async with EventStore(settings) as store:
                if check:
                    status.update("comparing …")
                    return await check_criteria(store, found, backups, url)
                return await roll_back(
                    store,
                    found,
                    into or backups / RESTORE_FILE,
                    stop_command=stop_command,
                    start_command=start_command,
                    url=url,
                    seconds=seconds,
                    on_step=_shown_on(status),
                )

    _print_report(run_stoppable(work()), as_json, report)


def _print_report(report: Report, as_json: bool, file: Path | None) -> None:
    """Print a report, and exit with code 1 if there is something to act on."""
    if file is not None:
        write_private(file, json.dumps(report.values(), indent=2) + "\n")  # differences quote what was said
    if as_json:
        print_json(report.values())
    else:
        for line in report.lines():
            typer.echo(text(line))
    if not report.is_clean:
        raise typer.Exit(1)
