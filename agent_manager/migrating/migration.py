"""The way over: a backup of the source, what is new of it into the log, and the proof that all of it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent_manager.manager.log import ServerLog
from agent_manager.migrating.backup import Backup, backup_path, check_tenant, remove_backup, write_backup
from agent_manager.migrating.contradicting import SourceContradictsStore
from agent_manager.migrating.managers import ManagerSource
from agent_manager.migrating.report import MigrationReport
from agent_manager.migrating.source import Source
from agent_manager.migrating.taking_over import Progress, Taking
from agent_manager.migrating.verifying import verify_backup
from eventstore import EventStore, Settings
from eventstore.caller import checked_tenant
from eventstore.portal import Portal

BACKUPS = Path("eventstore-backups")
"""The folder of the backups, where none is named."""

Doing = Callable[[str], None]
"""Told what comes next."""


async def migrate(
    source: Source,
    store: EventStore,
    *,
    backups: Path = BACKUPS,
    tenant: str | None = None,
    time_zone: str | None = None,
    doing: Doing | None = None,
    progress: Progress | None = None,
) -> MigrationReport:
    """Take over what a source holds and the store does not: run it again, and only what is new goes in.

    Args:
        time_zone: the IANA name of the zone of times that have no offset; UTC if left out.

    Raises:
        SourceContradictsStore: the store holds other conversations under the identities of some. Nothing was written,
            and the backup is removed.
        SourceUnreadable: the source cannot be read. Nothing was written.
        ServerError: the server failed; run it again to go on.
        OSError: the backup cannot be written. Nothing went into the store.
    """
    if doing is not None:
        doing("backing up")
    of = checked_tenant(store.tenant if tenant is None else tenant)
    backup = await write_backup(source, backup_path(backups), of, time_zone)
    try:
        return await take_over(backup, store, tenant=tenant, doing=doing, progress=progress)
    except SourceContradictsStore:
        remove_backup(backup)
        raise


async def take_over(
    backup: Backup,
    store: EventStore,
    *,
    tenant: str | None = None,
    doing: Doing | None = None,
    progress: Progress | None = None,
) -> MigrationReport:
    """Take over what a backup of the tenant holds and the store does not.

    Raises:
        BackupMismatch: it is of another tenant. :func:`migrate` from a :class:`BackupSource` takes it over even so.
        SourceContradictsStore: the store holds other conversations under the identities of some. Nothing was written.
    """
    tenant = checked_tenant(store.tenant if tenant is None else tenant)
    check_tenant(backup, tenant)
    taking = Taking(ServerLog(store, tenant))
    if doing is not None:
        doing("taking over")
    await taking.all(backup, progress)
    if doing is not None:
        doing("verifying")
    verified = await verify_backup(store, tenant, backup)
    return MigrationReport(backup, taking.new_events, verified, taking.problems, taking.misdated)


def migrate_from(
    manager: Any,
    *,
    files: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    backups: Path | str = BACKUPS,
    tenant: str | None = None,
    time_zone: str | None = None,
) -> MigrationReport:
    """Take over what a manager in this process holds. Call it from any thread; it returns when all is verified.

    Args:
        manager: the demo application's, ours, or one like them.
        files: what the application's server keeps apart from its messages, as the demo's ``server._file_cache``.
        settings: which store; from the environment and ``.env`` if left out.
        backups: the folder for the backup of what the manager holds.
        tenant: the store's own if left out.
        time_zone: the IANA name of the zone of times that have no offset; UTC if left out.

    Raises:
        SourceUnreadable: the manager holds something that has no JSON. Nothing was written.
        EventStoreError: the store cannot be used.
    """

    async def work() -> MigrationReport:
        async with EventStore(settings) as store:
            source = ManagerSource(manager, files)
            return await migrate(source, store, backups=Path(backups), tenant=tenant, time_zone=time_zone)

    portal = Portal()
    try:
        return portal.call(work())
    finally:
        portal.close()
