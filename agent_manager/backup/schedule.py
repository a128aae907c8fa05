"""Backups and drills at regular times, for as long as a service runs.

Each is a process of its own, ``eventstore backup create`` or ``drill``, so that compressing a large log takes nothing
from the threads that serve. All processes of a service may follow the same schedule: a backup is due when the newest
one in the target is old enough, by whichever process it was made, and the database's lock lets one of them make it. The
same holds for drills.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from agent_manager.backup.archive import Archive, Retention, prune
from agent_manager.backup.create import BackupRunning
from agent_manager.backup.drill import DrillRunning, last_drill
from agent_manager.backup.targets import open_target
from agent_manager.settings import ServerSettings
from eventstore.errors import EventStoreError

RETRY_SECONDS = 60.0
"""The time after a failure until the next attempt, if none is due before."""
STOP_SECONDS = 10.0
"""The time in which a drill must have stopped its server when the service stops."""
_EVENTS = {
    "backup": ("backup_done", "backup_failed"),
    "drill": ("drill_done", "drill_failed"),
    "retention run": ("retention_run_done", "retention_run_failed"),
}
_NO_BACKUP = "there is no backup yet"
_EXPECTED = (BackupRunning.TEXT, DrillRunning.TEXT, _NO_BACKUP)
_PROGRAM = "from agent_manager.cli import main; main()"

_log = logging.getLogger(__name__)


async def follow_schedule(settings: ServerSettings) -> None:
    """Make backups into ``EVENTSTORE_BACKUP_DIR``, prune and try them, until this is cancelled; log each outcome."""
    archive = Archive(open_target(settings.backup_dir))
    retention = Retention(settings.backup_daily, settings.backup_weekly, settings.backup_monthly)

    async def make() -> str:
        failure = await _run(settings, "create")
        if not failure:
            await asyncio.to_thread(prune, archive, retention)
        return failure

    async def try_newest() -> str:
        if await asyncio.to_thread(archive.newest) is None:
            return _NO_BACKUP
        return await _run(settings, "drill")

    age_of_backup, age_of_drill = (partial(asyncio.to_thread, age, archive) for age in (age_of_newest, _age_of_drill))
    backups = repeat("backup", settings.backup_minutes * 60, age_of_backup, make, _EXPECTED)
    drills = repeat("drill", settings.backup_drill_hours * 3600, age_of_drill, try_newest, _EXPECTED)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(backups)
        if settings.backup_drill_hours:
            tasks.create_task(drills)
        else:
            drills.close()


async def repeat(
    name: str,
    seconds: float,
    age: Callable[[], Awaitable[float | None]],
    work: Callable[[], Awaitable[str]],
    expected: Sequence[str],
) -> None:
    """Do some work whenever its last result is so many seconds old.

    Args:
        age: returns how many seconds ago it was done last, by any process; None if never.
        work: returns why it failed, or an empty text.
        expected: the texts of failures that need not be logged.
    """
    done_event, failed_event = _EVENTS[name]
    while True:
        began = monotonic()
        try:
            last = await age()
            if last is not None and last < seconds:
                await asyncio.sleep(seconds - last)
                continue  # another process may have done it meanwhile
            failure = await work()
        except (EventStoreError, OSError) as error:
            failure = str(error)
        if not failure:
            fields = {"event": done_event, "seconds": round(monotonic() - began, 1)}
            _log.info("the %s is complete", name, extra=fields)
            continue
        if not any(text in failure for text in expected):
            _log.error("the %s failed: %s", name, failure, extra={"event": failed_event})
        await asyncio.sleep(min(RETRY_SECONDS, seconds))


def age_of_newest(archive: Archive) -> float | None:
    """Return how many seconds ago the newest backup began; None if there is none."""
    newest = archive.newest()
    return None if newest is None else (datetime.now(UTC) - newest.created_at).total_seconds()


def _age_of_drill(archive: Archive) -> float | None:
    last = last_drill(archive)
    return None if last is None else (datetime.now(UTC) - last.at).total_seconds()


async def _run(settings: ServerSettings, command: str) -> str:
    """Make or try a backup in a process of its own; log its remarks; return why it failed, or an empty text."""
    # In the environment, because every user of the machine could see an argument.
    url = settings.server_url()
    environment = {
        **({} if url is None else {"DATABASE_URL": url}),
        "EVENTSTORE_DATA_DIR": str(settings.data_dir),
        "EVENTSTORE_SCHEMA": settings.db_schema,
        "EVENTSTORE_ALLOW_SUPERUSER": str(settings.allow_superuser),
        "EVENTSTORE_BACKUP_DIR": settings.backup_dir,
        "EVENTSTORE_LOG_FORMAT": "text",
        "EVENTSTORE_LOG_LEVEL": "error",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, "backup", command,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        _, output = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            process.terminate()  # a drill removes its database; a backup ends at once, and the next one continues
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            process.kill()
        await process.wait()
        raise
    text = output.decode(errors="replace").strip().removeprefix("eventstore: error: ")
    if process.returncode:
        return text or f"it ended with {process.returncode}"
    if text:
        _log.warning("backup %s: %s", command, text, extra={"event": "backup_remark"})
    return ""
