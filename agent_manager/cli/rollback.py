"""The command rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from agent_manager.cli.import_ import Backups, ReportFile, print_report
from agent_manager.cli.options import DataDir, Json, Tenant, check_tenant_option, read_settings, run_stoppable
from agent_manager.cli.output import errors, print_result
from agent_manager.importers.backup import SUFFIX, check_tenant, choose_backup, open_backup
from agent_manager.importers.migration import BACKUPS
from agent_manager.importers.rollback import roll_back
from agent_manager.importers.rollback_criteria import check_criteria, measure, write_baseline
from agent_manager.importers.verify import Report
from eventstore import EventStore
from eventstore.scope import checked_tenant

_RESTORE_FILE = f"restore{SUFFIX}"


def rollback(
    check: Annotated[bool, Option("--check", help="Only report whether there is a reason to roll back.")] = False,
    baseline: Annotated[
        bool, Option("--baseline", help="Only record the latency of the application at --url.")
    ] = False,
    url: Annotated[str | None, Option(help="The URL of the application, once it has started.")] = None,
    stop_command: Annotated[str | None, Option(help="Shell command that stops the application.")] = None,
    start_command: Annotated[
        str | None,
        Option(
            help="Shell command that starts the in-memory application; its output goes to application.log beside FILE."
        ),
    ] = None,
    seconds: Annotated[float, Option(min=1, help="How long each command may take.")] = 120,
    backup: Annotated[Path | None, Option(help="The backup; by default the tenant's newest in the folder.")] = None,
    backups: Backups = BACKUPS,
    into: Annotated[
        Path | None, Option(metavar="FILE", help=f"The file to restore; by default {_RESTORE_FILE} in the folder.")
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
    named_tenant, tenant = tenant, checked_tenant(settings.tenant)
    if baseline:
        if url is None:
            raise typer.BadParameter("--baseline: give the application's --url")
        path = write_baseline(run_stoppable(measure(url, tenant)), backups)
        print_result({"recorded_in": str(path)}, f"recorded in {path}", as_json=as_json)
        return

    async def work() -> Report:
        with errors.status("…") as status:
            async with EventStore(settings) as store:
                await check_tenant_option(store, named_tenant)
                if backup is None:
                    found = choose_backup(backups, tenant, url, may_have_moved=check)
                else:
                    found = check_tenant(open_backup(backup), tenant)
                if check:
                    status.update("comparing …")
                    return await check_criteria(store, found, backups, url)
                return await roll_back(
                    store,
                    found,
                    into or backups / _RESTORE_FILE,
                    stop_command=stop_command,
                    start_command=start_command,
                    url=url,
                    seconds=seconds,
                    on_step=lambda step: status.update(f"{step} …"),
                )

    print_report(run_stoppable(work()), as_json, report)
