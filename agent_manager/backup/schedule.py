"""Backups at regular times, for as long as a service runs.

Each is made by a process of its own, ``eventstore backup create``, so that compressing a large log takes nothing from
the threads that serve. All processes of a service may follow the same schedule: a backup is due when the newest one in
the target is old enough, by whichever process it was made, and the database's lock lets one of them make it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic

from agent_manager.backup.archive import Archive, open_target
from agent_manager.backup.create import BackupRunning
from agent_manager.backup.retention import Retention, prune
from agent_manager.settings import ServerSettings
from eventstore.errors import EventStoreError

RETRY_SECONDS = 60.0
"""The time after a failed backup until the next attempt, if no backup is due before."""
_log = logging.getLogger(__name__)
_PROGRAM = "from agent_manager.cli import main; main()"


async def follow_schedule(settings: ServerSettings) -> None:
    """Make backups into ``EVENTSTORE_BACKUP_DIR`` and prune them, until this is cancelled. Log each, and each error."""
    archive = Archive(open_target(settings.backup_dir))
    seconds = settings.backup_minutes * 60
    retention = Retention(settings.backup_daily, settings.backup_weekly, settings.backup_monthly)
    while True:
        try:
            await asyncio.sleep(max(0.0, seconds - await asyncio.to_thread(age_of_newest, archive, seconds)))
            if await asyncio.to_thread(age_of_newest, archive, seconds) < seconds:
                continue  # another process made one meanwhile
            began = monotonic()
            if failure := await _create(settings):
                if BackupRunning.TEXT not in failure:
                    _log_failure(failure)
                await asyncio.sleep(min(RETRY_SECONDS, seconds))
            else:
                fields = {"event": "backup_done", "seconds": round(monotonic() - began, 1)}
                _log.info("the backup is complete", extra=fields)
                await asyncio.to_thread(prune, archive, retention)
        except (EventStoreError, OSError) as error:
            _log_failure(error)
            await asyncio.sleep(min(RETRY_SECONDS, seconds))


def _log_failure(reason: object) -> None:
    _log.error("the backup failed: %s", reason, extra={"event": "backup_failed"})


def age_of_newest(archive: Archive, if_none: float) -> float:
    """Return how many seconds ago the newest backup began."""
    manifests, _ = archive.manifests()
    return (datetime.now(UTC) - manifests[-1].created_at).total_seconds() if manifests else if_none


async def _create(settings: ServerSettings) -> str:
    """Make a backup in a process of its own; return why it failed, or an empty text."""
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
        sys.executable, "-c", _PROGRAM, "backup", "create",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        _, output = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()  # the next backup continues with what it has written
        await process.wait()
        raise
    text = output.decode(errors="replace").strip().removeprefix("eventstore: error: ")
    return (text or f"it ended with {process.returncode}") if process.returncode else ""
