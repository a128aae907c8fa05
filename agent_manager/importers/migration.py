"""Migration: a backup of the source, the new events into the log, and the verification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent_manager.importers.a2a_demo import ManagerSource
from agent_manager.importers.backup import Backup, backup_path, check_tenant, remove_backup, write_backup
from agent_manager.importers.backup_loader import BackupLoader, Progress, SourceContradictsStore
from agent_manager.importers.source import Problem, Source
from agent_manager.importers.verify import Verified, verify_backup
from agent_manager.storage import ServerLog
from eventstore import EventStore, Settings
from eventstore.scope import checked_tenant
from eventstore.sync import Portal

# What a migration did, in words and as JSON

_SHOWN = 20


class Reported(Protocol):
    """What tells in words and as JSON what was found, and whether all is well."""

    @property
    def is_clean(self) -> bool:
        """Whether all is well."""
        ...

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        ...

    def lines(self) -> Iterator[str]:
        """All of it in words."""
        ...


@dataclass(slots=True)
class MigrationReport:
    """What a migration did.

    Attributes:
        backup: of the source.
        new_events: that were appended; none where the store had everything already.
        verified: the store compared with the backup.
        problems: what the source did not give, or the store did not take.
        misdated: messages with times that cannot be right; they went in with them.
    """

    backup: Backup
    new_events: int
    verified: Verified
    problems: list[Problem] = field(default_factory=list)
    misdated: list[Problem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether everything is there, as it was."""
        return not self.problems and not self.verified.differences

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "clean": self.is_clean,
            "tenant": self.backup.tenant,
            "source": self.backup.source,
            "backup": {"file": str(self.backup.path), "sha256": self.backup.sha256},
            "pending": self.backup.pending,
            "new_events": self.new_events,
            **verified_values(self.verified),
            "problems": [asdict(problem) for problem in self.problems],
            "misdated": [asdict(problem) for problem in self.misdated],
        }

    def lines(self) -> Iterator[str]:
        """All of it in words; of long lists the beginning."""
        yield f"Source      {self.backup.source}, {len(self.backup.agents):,} agent(s)"
        yield f"Backup      {self.backup.path}"
        yield f"Taken over  {self.new_events:,} new events"
        yield from verified_lines(self.verified)
        if self.backup.pending:
            yield f"Pending     {self.backup.pending:,} message(s) were being answered: import again when they are"
        yield from shown("Problem     ", self.problems)
        yield from shown("Time        ", self.misdated)


def verified_values(verified: Verified) -> dict[str, Any]:
    """A comparison as plain values."""
    return {
        "conversations": verified.conversations,
        "messages": verified.messages,
        "tasks": verified.tasks,
        "changed_since": list(verified.changed),
        "deleted_since": sorted(verified.hidden),
        "conversations_that_differ": verified.differing,
        "differences": [asdict(difference) for difference in verified.differences],
    }


def verified_lines(verified: Verified, done: str = "are in the store") -> Iterator[str]:
    """A comparison in words; ``done`` says what all of it does where nothing differs."""
    counts = f"{verified.conversations:,} conversations, {verified.messages:,} messages, {verified.tasks:,} tasks"
    if not verified.differences:
        yield f"Verified    {counts}: all {done} as they were"
    else:
        yield f"DIFFERENT   {len(verified.differing):,} of {counts}"
        yield from shown("            ", verified.differences)
    if verified.changed:
        yield f"Changed     {len(verified.changed):,} conversation(s) by the store's users since: left as they are"
    if verified.hidden:
        yield f"Deleted     {len(verified.hidden):,} conversation(s) by the store's users since: left as they are"


def shown(heading: str, things: list[Any]) -> Iterator[str]:
    """A line each, and how many more there are."""
    for thing in things[:_SHOWN]:
        yield f"{heading}{thing}"
    if len(things) > _SHOWN:
        yield f"{heading}and {len(things) - _SHOWN:,} more: --json shows all"


# The way over: a backup of the source, what is new of it into the log, and the proof that all of it is there

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
    taking = BackupLoader(ServerLog(store, tenant))
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
