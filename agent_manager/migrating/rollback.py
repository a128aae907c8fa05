"""The way back: stop, restore, verify, restart.

It is rehearsed first, while the application still runs: what would go back is put together and verified, so that a
reason not to go is found before anything is stopped. The store is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent_manager.migrating.backup import SUFFIX, Backup, check_tenant, write_backup
from agent_manager.migrating.commands import run_command, start_application
from agent_manager.migrating.exporting import StoreSource
from agent_manager.migrating.merging import MergedSource, verify_merged, written_meanwhile
from agent_manager.migrating.report import shown, verified_lines, verified_values
from agent_manager.migrating.restoring import RESTORE
from agent_manager.migrating.serving import verify_served
from agent_manager.migrating.verifying import Verified
from eventstore import EventStore

LOG = "application.log"
"""Beside what goes back: what the command says that starts the application, and the application itself."""


@dataclass(frozen=True, slots=True)
class Commands:
    """How to stop and start the application.

    Attributes:
        stop, start: commands of the shell; None where the operator does it.
        url: where it answers once it has started; None where nobody is to look.
        seconds: how long either may take.
    """

    stop: str | None = None
    start: str | None = None
    url: str | None = None
    seconds: float = 120.0


@dataclass(slots=True)
class RollbackReport:
    """What the way back did.

    Attributes:
        backup: from which it went.
        restored: what the application's manager takes; None where the rehearsal found a reason not to go.
        verified: what goes back compared with the backup and the store.
        served: what the started application serves compared with what went back; None where nobody looked.
        started: whether it was started.
        hidden: conversations that were deleted in the store and stay so.
        meanwhile: conversations that somebody wrote to although the application was to be stopped.
        ignored: what was not applied of events in the log, and why; all the rest goes back.
    """

    backup: Backup
    restored: Backup | None
    verified: Verified
    served: Verified | None = None
    started: bool = False
    hidden: int = 0
    meanwhile: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether everything went back."""
        lost = self.served is not None and self.served.differences
        return self.restored is not None and not self.verified.differences and not lost and not self.meanwhile

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "clean": self.is_clean,
            "backup": str(self.backup.path),
            "restored": None
            if self.restored is None
            else {"file": str(self.restored.path), "sha256": self.restored.sha256},
            "verified": verified_values(self.verified),
            "started": self.started,
            "served": None if self.served is None else verified_values(self.served),
            "hidden": self.hidden,
            "written_meanwhile": self.meanwhile,
            "ignored": self.ignored,
        }

    def lines(self) -> Iterator[str]:
        """All of it in words."""
        yield f"Backup      {self.backup.path}"
        if self.restored is None:
            yield "NOT DONE    nothing was stopped: what would go back is not complete"
        else:
            yield f"Restored    {self.restored.path}"
        yield from verified_lines(self.verified, "go back")
        if self.hidden:
            yield f"Hidden      {self.hidden:,} conversation(s) were deleted in the store and stay so"
        yield from shown("Ignored     ", self.ignored)
        if self.meanwhile:
            yield f"NOT DONE    {len(self.meanwhile):,} conversation(s) were written to meanwhile: stop the application"
            yield from shown("            ", self.meanwhile)
        if self.served is not None and self.served.differences:
            yield f"NOT SERVED  {len(self.served.differing):,} conversations are served otherwise, or not at all"
            yield from shown("            ", self.served.differences)
        elif self.served is not None:
            yield f"Served      all {self.served.conversations:,} conversations as they went back"
        if self.is_clean and self.restored is not None and not self.started:
            yield f"Next        start the application with {RESTORE}={self.restored.path}"


async def roll_back(
    store: EventStore,
    backup: Backup,
    into: Path,
    commands: Commands,
    *,
    tenant: str | None = None,
    doing: Callable[[str], None] = lambda text: None,
) -> RollbackReport:
    """Go back.

    Args:
        backup: of the tenant.
        into: where the file goes that the application's manager takes (:func:`restore_into`).
        doing: told what comes next.

    Raises:
        BackupMismatch: the backup is of another tenant.
        CommandFailed: the application could not be stopped (then nothing was done), or not be started.
        SourceUnreadable: the started application does not serve the demo's endpoints.
        OSError: the file cannot be written.
    """
    tenant = store.tenant if tenant is None else tenant
    check_tenant(backup, tenant)
    doing("rehearsing")
    with TemporaryDirectory(prefix="eventstore-") as folder:
        rehearsed = await _restored(store, tenant, backup, Path(folder) / f"rehearsal{SUFFIX}", rehearsal=True)
        if not rehearsed.is_clean:
            rehearsed.restored = None
            return rehearsed
    if commands.stop is not None:
        doing("stopping the application")
        await run_command(commands.stop, commands.seconds)
    doing("restoring")
    report = await _restored(store, tenant, backup, into)
    if report.restored is None or not report.is_clean or commands.start is None:
        return report
    doing("starting the application")
    environment = {RESTORE: str(report.restored.path.absolute())}
    log = into.with_name(LOG)
    await start_application(commands.start, environment, commands.url, commands.seconds, log)
    report.started = True
    if commands.url is not None:
        doing("verifying what it serves")
        report.served = await verify_served(commands.url, report.restored)
    return report


async def _restored(
    store: EventStore, tenant: str, backup: Backup, into: Path, *, rehearsal: bool = False
) -> RollbackReport:
    source = StoreSource(store, tenant)
    merging = MergedSource(backup, source, tenant)
    written = await write_backup(merging, into, tenant, backup.time_zone)
    verified = await verify_merged(written, backup, source, merging)
    meanwhile = [] if rehearsal else await written_meanwhile(source, merging)
    return RollbackReport(
        backup, written, verified, hidden=len(merging.hidden), meanwhile=meanwhile, ignored=merging.ignored
    )
