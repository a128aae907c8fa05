"""Migration of a source into the store: a backup, the events that are new, and a verification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent_manager.a2a import Json
from agent_manager.importers.a2a_demo import ManagerSource
from agent_manager.importers.backup import Backup, check_tenant, new_backup_path, remove_backup, write_backup
from agent_manager.importers.backup_loader import BackupLoader, LoadProgress, SourceContradictsStore
from agent_manager.importers.comparison import Verification, list_lines
from agent_manager.importers.source import Problem, Source
from agent_manager.importers.verify import verify_backup
from agent_manager.storage import ServerLog
from eventstore import EventStore, Settings
from eventstore.scope import checked_tenant
from eventstore.sync import Portal

BACKUPS = Path("eventstore-backups")
"""The default folder of the backups."""

IN_STORE = "are in the store as they were"


class Report(Protocol):
    """The result of a command, in words and as JSON."""

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to act on."""
        ...

    def values(self) -> Json:
        """Return the result as plain values."""
        ...

    def lines(self) -> Iterator[str]:
        """Yield the result in words; long lists are cut."""
        ...


@dataclass(slots=True)
class MigrationReport:
    """The result of a migration.

    Attributes:
        new_events: how many events were appended; 0 if the store had everything already.
        verified: the comparison of the store with the backup.
        problems: what the source did not give, or the store did not accept.
        misdated: messages with times that cannot be right; they were stored with these times.
    """

    backup: Backup
    new_events: int
    verified: Verification
    problems: list[Problem] = field(default_factory=list)
    misdated: list[Problem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether everything is in the store as it was."""
        return not self.problems and not self.verified.differences

    def values(self) -> Json:
        """See :class:`Report`."""
        return {
            "clean": self.is_clean,
            "tenant": self.backup.tenant,
            "source": self.backup.source,
            "backup": {"file": str(self.backup.path), "sha256": self.backup.sha256},
            "pending": self.backup.pending,
            "new_events": self.new_events,
            **self.verified.values(),
            "problems": [asdict(problem) for problem in self.problems],
            "misdated": [asdict(problem) for problem in self.misdated],
        }

    def lines(self) -> Iterator[str]:
        """See :class:`Report`."""
        yield f"Source      {self.backup.source}, {len(self.backup.agents):,} agent(s)"
        yield f"Backup      {self.backup.path}"
        yield f"Imported    {self.new_events:,} new events"
        yield from self.verified.lines(IN_STORE)
        if self.backup.pending:
            yield f"Pending     {self.backup.pending:,} message(s) awaited an answer: import again when they have it"
        yield from list_lines("Problem", self.problems)
        yield from list_lines("Time", self.misdated)


async def migrate(
    source: Source,
    store: EventStore,
    *,
    backups: Path = BACKUPS,
    tenant: str | None = None,
    time_zone: str | None = None,
    on_step: Callable[[str], None] | None = None,
    on_progress: Callable[[LoadProgress], None] | None = None,
) -> MigrationReport:
    """Import what a source holds and the store does not. Run it again to import only what is new since.

    Args:
        backups: the folder for the backup of the source.
        tenant: the store's own by default.
        time_zone: the IANA name of the zone of times that have no offset; UTC by default.
        on_step: called with a description of each step before it begins.
        on_progress: called during the import.

    Raises:
        SourceContradictsStore: the store holds other conversations under the ids of some. Nothing was written, and the
            backup was removed.
        SourceUnreadable: the source cannot be read. Nothing was written.
        ServerError: the server failed; run the migration again to continue.
        OSError: the backup cannot be written. Nothing was stored.
    """
    if on_step is not None:
        on_step("backing up")
    backup_tenant = checked_tenant(store.tenant if tenant is None else tenant)
    backup = await write_backup(source, new_backup_path(backups), backup_tenant, time_zone)
    try:
        return await import_backup(backup, store, tenant=tenant, on_step=on_step, on_progress=on_progress)
    except SourceContradictsStore:
        remove_backup(backup)
        raise


async def import_backup(
    backup: Backup,
    store: EventStore,
    *,
    tenant: str | None = None,
    on_step: Callable[[str], None] | None = None,
    on_progress: Callable[[LoadProgress], None] | None = None,
) -> MigrationReport:
    """Import what a backup of the tenant holds and the store does not.

    Raises:
        BackupMismatch: it is of another tenant. To import it even so, :func:`migrate` from a :class:`BackupSource`.
        SourceContradictsStore: the store holds other conversations under the ids of some. Nothing was written.
    """
    tenant = checked_tenant(store.tenant if tenant is None else tenant)
    check_tenant(backup, tenant)
    loader = BackupLoader(ServerLog(store, tenant))
    if on_step is not None:
        on_step("importing")
    await loader.load(backup, on_progress)
    if on_step is not None:
        on_step("verifying")
    verified = await verify_backup(store, tenant, backup)
    return MigrationReport(backup, loader.new_events, verified, loader.problems, loader.misdated)


def migrate_from(
    manager: Any,
    *,
    files: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    backups: Path | str = BACKUPS,
    tenant: str | None = None,
    time_zone: str | None = None,
) -> MigrationReport:
    """Import what a manager in this process holds. Call it from any thread; it returns when everything is verified.

    Args:
        manager: the demo application's, ours, or one like them.
        files: the files that the application's server keeps apart from its messages, as the demo's
            ``server._file_cache``.
        settings: of the store; from the environment and ``.env`` by default.
        backups: the folder for the backup of what the manager holds.
        tenant: the store's own by default.
        time_zone: the IANA name of the zone of times that have no offset; UTC by default.

    Raises:
        SourceUnreadable: the manager holds something that has no JSON form. Nothing was written.
        EventStoreError: the store cannot be used.
    """

    async def run() -> MigrationReport:
        async with EventStore(settings) as store:
            source = ManagerSource(manager, files)
            return await migrate(source, store, backups=Path(backups), tenant=tenant, time_zone=time_zone)

    portal = Portal()
    try:
        return portal.call(run())
    finally:
        portal.close()
