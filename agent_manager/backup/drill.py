"""Trying whether the newest backup can be restored, beside the running system.

The outcome is kept beside the backups, for every process to see.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir

from pydantic import TypeAdapter

from agent_manager.backup.archive import Archive
from agent_manager.backup.create import exclusively
from agent_manager.backup.manifest import Manifest
from agent_manager.backup.restore import restore_backup
from agent_manager.backup.verify import digest_of
from eventstore import EventStore, Settings
from eventstore.database.connection import APP, PROJECTOR
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.embedded.locks import FileLock, is_free
from eventstore.database.queries import query
from eventstore.errors import ConflictError, EventStoreError, translated

_FOLDER, _DATA, _LOCK = "eventstore-drill-", "data", "drill.lock"


@dataclass(frozen=True, slots=True)
class Drill:
    """The outcome of a drill.

    Attributes:
        failure: why the backup could not be restored, or how it differs from the live log; empty if it is right.
        events: the number of restored events; each has the digest that the live log has for it.
        recovery_seconds: how long the restore took, read tables included: the recovery time (RTO).
        age_seconds: the age of the backup; what was written since then would be lost (RPO).
        events_since: the number of events that were appended since then.
    """

    at: datetime
    backup_id: str
    age_seconds: float
    events: int = 0
    recovery_seconds: float = 0
    events_since: int = 0
    failure: str = ""


_RECORD = TypeAdapter(Drill)


class DrillFailed(EventStoreError):
    """The restored log differs from the live log."""


class DrillRunning(ConflictError):
    """Another process is trying a backup of the same database."""

    TEXT = "another process is trying a backup of this database: wait until it has ended"

    def __init__(self) -> None:
        super().__init__(self.TEXT)


def last_drill(archive: Archive) -> Drill | None:
    """Return the outcome of the last drill; None if there was none."""
    with suppress(ValueError):
        return _RECORD.validate_json(archive.read_drill())
    return None


async def drill(store: EventStore, archive: Archive) -> Drill:
    """Restore the newest backup into an embedded server in a temporary folder, and compare its log with the live one.

    The folder (``TMPDIR``) takes about as much as the live log does. The live server is only read from.

    Raises:
        DrillFailed: the restored log differs from the live one.
        DrillRunning: another process is trying a backup.
    """
    async with await store.connect(APP) as locking:
        with translated():
            async with exclusively(locking, store, "drills", DrillRunning):
                manifest = archive.manifest()
                outcome = Drill(datetime.now(UTC), manifest.id, manifest.age_seconds)
                try:
                    outcome = await _try(store, archive, manifest, outcome)
                except EventStoreError as error:
                    archive.write_drill(_RECORD.dump_json(replace(outcome, failure=str(error))))
                    raise
                archive.write_drill(_RECORD.dump_json(outcome))
    return outcome


async def _try(store: EventStore, archive: Archive, manifest: Manifest, outcome: Drill) -> Drill:
    _remove_remnants()
    with (
        # If this is interrupted while the server starts, files may be left; the next drill removes them.
        TemporaryDirectory(prefix=_FOLDER, ignore_cleanup_errors=True) as folder,
        FileLock(Path(folder) / _LOCK) as lock,
    ):
        lock.exclusive()
        named = {name: None for name in Settings.model_fields if name.startswith(("database_url", "postgres_"))}
        others = {"listen_url": None, "read_url": None, "pg_port": None, "data_dir": Path(folder) / _DATA}
        settings = store.settings.model_copy(update=named | others)
        restored = await restore_backup(settings, archive, manifest)
        async with (
            EventStore(settings) as other_store,
            await other_store.connect(PROJECTOR) as other,
            await store.connect(PROJECTOR) as live,
        ):
            for segment in manifest.segments:
                if await digest_of(live, settings, segment) != await digest_of(other, settings, segment):
                    raise DrillFailed(
                        f"the live log and the backup {manifest.id} differ between the positions {segment.first} "
                        f"and {segment.last}: one of them was changed; keep both, and compare them"
                    )
            after = {"after": manifest.position}
            [(since,)] = await store.connections.projector.fetch(query("agent_manager.backup", "events_after"), after)
    return replace(outcome, events=restored.events, recovery_seconds=restored.seconds, events_since=since)


def _remove_remnants() -> None:
    """Remove the folders of drills that were killed, and stop a server that still runs in one."""
    for folder in Path(gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError, EventStoreError), FileLock(folder / _LOCK) as lock:
            if not lock.try_exclusive():
                continue
            data = folder / _DATA
            if data.exists() and not all(is_free(data / name) for name in ("start.lock", "server.lock")):
                with EmbeddedServer(data):
                    pass  # its last user stops it
            rmtree(folder)
