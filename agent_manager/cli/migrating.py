"""The way over by ``import --from-…``, and the command ``rollback``."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

import typer

from agent_manager.cli.options import DataDir, Json, Tenant, read_settings
from agent_manager.cli.output import errors, print_json, text
from agent_manager.cli.stopping import run_stoppable
from agent_manager.importing.times import time_zone
from agent_manager.migrating.adk import AdkSource
from agent_manager.migrating.backup import SUFFIX, BackupSource, check_tenant, choose_backup, open_backup
from agent_manager.migrating.baseline import has_baseline, measured, write_baseline
from agent_manager.migrating.criteria import check_criteria
from agent_manager.migrating.endpoints import EndpointSource
from agent_manager.migrating.migration import BACKUPS, migrate, take_over
from agent_manager.migrating.private_files import write_private
from agent_manager.migrating.report import Reported
from agent_manager.migrating.rollback import Commands, roll_back
from agent_manager.migrating.taking_over import TakenOver
from eventstore import EventStore, Settings
from eventstore.caller import checked_tenant

RESTORE_FILE = f"restore{SUFFIX}"

FromUrl = Annotated[
    str | None,
    typer.Option("--from-url", metavar="URL", help="An application of the demo's endpoints.", show_default=False),
]
FromAdk = Annotated[
    str | None,
    typer.Option("--from-adk", metavar="URL", help="A database of google-adk's sessions.", show_default=False),
]
FromBackup = Annotated[
    Path | None,
    typer.Option("--from-backup", metavar="FILE", help="A backup that such an import took.", show_default=False),
]
Backups = Annotated[Path, typer.Option("--backups", metavar="FOLDER", help="Where backups of sources are kept.")]
ReportFile = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write the report there as JSON.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(rollback)


def import_from(
    settings: Settings,
    *,
    url: str | None,
    adk: str | None,
    backup: Path | None,
    backups: Path,
    as_json: bool,
    report_file: Path | None,
    zone: str | None,
    tenant_is_explicit: bool,
) -> None:
    """Take over from one of these sources; exit with code 1 unless everything is there as it was."""
    if zone is not None:
        time_zone(zone)
    if backup is not None and zone is not None:
        raise typer.BadParameter("--time-zone: a backup keeps the zone that it was taken with")

    async def work() -> Reported:
        with errors.status("…") as status:

            def progress(now: TakenOver) -> None:
                status.update(f"taking over: {now.conversations:,} of {now.total:,} conversations")

            def doing(what: str) -> None:
                status.update(f"{what} …")

            async with EventStore(settings) as store:
                if backup is not None:
                    found = open_backup(backup)
                    if tenant_is_explicit and found.tenant != store.tenant:
                        again, of = BackupSource(found), found.time_zone
                        return await migrate(
                            again, store, backups=backups, time_zone=of, doing=doing, progress=progress
                        )
                    return await take_over(found, store, doing=doing, progress=progress)
                source: AbstractAsyncContextManager[EndpointSource | AdkSource]
                source = EndpointSource(url) if url is not None else AdkSource(str(adk), zone)
                async with source as opened:
                    report = await migrate(
                        opened, store, backups=backups, time_zone=zone, doing=doing, progress=progress
                    )
                if url is not None and not has_baseline(backups, store.tenant, url):
                    doing("measuring, for a way back")
                    write_baseline(await measured(url, store.tenant), backups)
                return report

    _tell(run_stoppable(work()), as_json, report_file)


def rollback(
    check: Annotated[bool, typer.Option("--check", help="Only say whether a criterion for it is met.")] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Only record how fast the application at --url is.")
    ] = False,
    url: Annotated[str | None, typer.Option("--url", help="Where the application answers.", show_default=False)] = None,
    stop_command: Annotated[
        str | None, typer.Option("--stop-command", help="Stops the application.", show_default=False)
    ] = None,
    start_command: Annotated[
        str | None,
        typer.Option(
            "--start-command",
            help="Starts it, as it was, in memory; application.log beside FILE takes its output.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long either may take.")] = 120,
    backup: Annotated[
        Path | None,
        typer.Option("--backup", help="The tenant's newest in the folder, if left out.", show_default=False),
    ] = None,
    backups: Backups = BACKUPS,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help=f"What goes back; {RESTORE_FILE} in the folder, if left out."),
    ] = None,
    as_json: Json = False,
    report: ReportFile = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Go back to memory: stop the application, restore, verify, restart.

    What goes back is the backup that the import took and everything that was written to the store since, as a file
    that agent_manager.migrating.restore_into(manager) takes. It is put together and compared with both before anything
    is stopped. The command to start gets its name in EVENTSTORE_RESTORE. With --url the started application is asked
    for everything and compared. The store is only read. Exit code 1: something is missing, and named.

    Only backups of this tenant count, and with --url only those of that application; if they are of several sources,
    --backup chooses.

    --check compares instead: the store, and what the application at --url serves, with the backup; and the times of
    its basic operations with the baseline, which import --from-url recorded. Exit code 1: go back.
    """
    settings = read_settings(data_dir, tenant)
    if baseline:
        if url is None:
            raise typer.BadParameter("--baseline: give the application's --url")
        found = run_stoppable(measured(url, checked_tenant(settings.tenant)))
        typer.echo(f"recorded in {write_baseline(found, backups)}")
        return

    async def work() -> Reported:
        tenant = checked_tenant(settings.tenant)
        if backup is None:
            found = choose_backup(backups, tenant, url, may_have_moved=check)
        else:
            found = check_tenant(open_backup(backup), tenant)
        with errors.status("…") as status:
            async with EventStore(settings) as store:
                if check:
                    status.update("comparing …")
                    return await check_criteria(store, tenant, found, backups, url)
                how = Commands(stop_command, start_command, url, seconds)
                target = into or backups / RESTORE_FILE
                return await roll_back(store, found, target, how, doing=lambda what: status.update(f"{what} …"))

    _tell(run_stoppable(work()), as_json, report)


def _tell(report: Reported, as_json: bool, file: Path | None) -> None:
    if file is not None:
        write_private(file, json.dumps(report.values(), indent=2) + "\n")  # it shows what differs
    if as_json:
        print_json(report.values())
    else:
        for line in report.lines():
            typer.echo(text(line))
    if not report.is_clean:
        raise typer.Exit(1)
