"""Rolling a migration back: stop, restore, verify, restart.

It is rehearsed first, while the application still runs: what would go back is put together and verified, so that a
reason not to go is found before anything is stopped. The store is only read.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent_manager.importers.a2a_demo import EndpointSource
from agent_manager.importers.backup import SUFFIX, Backup, BackupDamaged, append_private, check_tenant, write_backup
from agent_manager.importers.latency_baseline import (
    SLOWER,
    SLOWER_MILLISECONDS,
    Slowness,
    baseline_path,
    compared,
    measured_again,
    read_baseline,
)
from agent_manager.importers.migration import shown, verified_lines, verified_values
from agent_manager.importers.restore import RESTORE, MergedSource, verify_merged, written_meanwhile
from agent_manager.importers.source import SourceUnreadable
from agent_manager.importers.store_source import StoreSource
from agent_manager.importers.verify import Verified, verify_backup, verify_served
from eventstore import EventStore
from eventstore.errors import InputError
from eventstore.urls import show_url

# Stopping and starting the application, by the commands that its operator gives

_LOOK_SECONDS = 0.1
_STDERR = 2


class CommandFailed(InputError):
    """A command to stop or start the application failed."""


async def run_command(command: str, seconds: float) -> None:
    """Runs a command of the shell to its end. What it says goes to standard error: the report stands on the other.

    Raises:
        CommandFailed: it failed, or took longer.
    """
    process = await _started(command, {}, _STDERR)
    try:
        code = await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        raise CommandFailed(f"{command!r} has not ended within {seconds:g} seconds: correct it, run it again") from None
    if code:
        raise CommandFailed(f"{command!r} failed with exit code {code}: correct it, then run this again")


async def start_application(
    command: str, environment: dict[str, str], url: str | None, seconds: float, log: Path
) -> None:
    """Runs a command that starts the application; it may go on running once the application answers at the URL.

    Args:
        log: takes what it says. It outlives this command, and whoever reads this one's output waits for its end.

    Raises:
        CommandFailed: it failed, or the application does not answer in time.
    """
    with append_private(log) as output:
        process = await _started(command, environment, output.fileno())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.returncode:
            why = f"{command!r} failed with exit code {process.returncode}"
            raise CommandFailed(f"{why}: see {log}, and start the application yourself")
        if url is None and process.returncode == 0:
            return
        if url is not None and await _answers(url):
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), _LOOK_SECONDS)
        if process.returncode == 0:
            await asyncio.sleep(_LOOK_SECONDS)
    waited = "ended" if url is None else f"answered at {show_url(url)}"
    raise CommandFailed(f"{command!r} has not {waited} within {seconds:g} seconds: see {log}")


async def _started(command: str, environment: dict[str, str], output: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=os.environ | environment,
        start_new_session=True,
    )


async def _answers(url: str) -> bool:
    try:
        async with EndpointSource(url) as application:
            await application.ask("conversation/list")
    except SourceUnreadable:
        return False
    return True


# The plan's criteria for the way back, as checks of what runs

FOR_PEOPLE = "a critical bug that stays unsolved for 24 hours is the plan's third criterion: that is yours to judge"


@dataclass(slots=True)
class Criteria:
    """What was found.

    Attributes:
        stored: the store compared with the backup.
        served: what the application serves compared with it; None where no URL was given.
        slowness: each basic operation; empty where it could not be compared.
        unmeasured: why not; empty where it could.
    """

    backup: Backup
    stored: Verified
    served: Verified | None = None
    slowness: list[Slowness] = field(default_factory=list)
    unmeasured: str = ""

    @property
    def data_lost(self) -> bool:
        """Whether something of the backup is no longer there."""
        return bool(self.stored.differences or (self.served is not None and self.served.differences))

    @property
    def too_slow(self) -> bool:
        """Whether a basic operation takes more than 50 % longer than before, and noticeably so."""
        return any(one.is_met for one in self.slowness)

    @property
    def is_met(self) -> bool:
        """Whether one of them is met: then the plan goes back."""
        return self.data_lost or self.too_slow

    @property
    def is_clean(self) -> bool:
        """Whether there is no reason to go back."""
        return not self.is_met

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "roll_back": self.is_met,
            "backup": str(self.backup.path),
            "data_lost": self.data_lost,
            "stored": verified_values(self.stored),
            "served": None if self.served is None else verified_values(self.served),
            "too_slow": self.too_slow if not self.unmeasured else None,
            "operations": [asdict(one) | {"ratio": round(one.ratio, 3)} for one in self.slowness],
            "unmeasured": self.unmeasured or None,
        }

    def lines(self) -> Iterator[str]:
        """All of it in words."""
        yield f"Backup      {self.backup.path}"
        yield from verified_lines(self.stored)
        if self.served is not None and self.served.differences:
            yield f"NOT SERVED  {len(self.served.differing):,} conversations are served otherwise, or not at all"
            yield from shown("            ", self.served.differences)
        elif self.served is not None:
            yield f"Served      all {self.served.conversations:,} conversations as they were"
        for one in self.slowness:
            word = "SLOWER" if one.is_met else "Speed"
            yield f"{word:<11} {one.operation}: {one.now:.1f} ms, {one.before:.1f} ms before: {one.ratio:.2f} times"
        if self.unmeasured:
            yield f"Speed       not compared: {self.unmeasured}"
        if self.is_met:
            why = [word for word, met in (("data is lost", self.data_lost), ("it is too slow", self.too_slow)) if met]
            yield f"ROLL BACK   {' and '.join(why)}"
        else:
            limit = f"{SLOWER:g} times what it took and {SLOWER_MILLISECONDS:g} ms more"
            yield f"Stay        nothing is lost, and nothing takes more than {limit}"
        yield f"            {FOR_PEOPLE}"


async def check_criteria(store: EventStore, tenant: str, backup: Backup, folder: Path, url: str | None) -> Criteria:
    """Whether a criterion is met.

    Args:
        folder: of the backups, where the baseline lies.
        url: of the application as it runs now; without it only what is stored is looked at.

    Raises:
        SourceUnreadable: nothing answers at the URL.
    """
    found = Criteria(backup, await verify_backup(store, tenant, backup))
    if url is None:
        found.unmeasured = "give the application's --url"
        return found
    found.served = await verify_served(url, backup, found.stored)
    try:
        baseline = read_baseline(folder, tenant, backup.source)
    except BackupDamaged as error:
        found.unmeasured = str(error)
        return found
    if baseline is None:
        found.unmeasured = (
            f"{baseline_path(folder)} of tenant {tenant!r} is missing: it is recorded by import --from-url"
        )
    else:
        found.slowness = compared(*await measured_again(baseline, url))
    return found


# The way back: stop, restore, verify, restart

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
