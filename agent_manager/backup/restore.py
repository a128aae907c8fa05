"""Restoring a backup into an empty database, and trying whether one can be restored.

The log is restored in one transaction: an error leaves the database empty. The transaction holds the lock of an append,
so that no worker passes the events before they can be seen. Before it commits, the digest of every event is computed
anew and the events are counted. Then the read tables are filled from the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from psycopg import sql

from agent_manager.backup.archive import Archive, BackupDamaged, Manifest, Part
from eventstore import EventStore, Settings
from eventstore.database.connection import PROJECTOR, Connection, set_role
from eventstore.database.migrate import Migrator
from eventstore.database.queries import query
from eventstore.errors import ConflictError, EventStoreError, InputError, translated
from projections import catch_up, load_projections

OWNER = "eventstore_owner"
_HIGHEST_POSITION = 2**63 - 1


class DatabaseNotEmpty(ConflictError):
    """The database has events or tenants already."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored.

    Attributes:
        position: of the last event.
        seconds: until the read tables were complete.
    """

    events: int
    position: int
    seconds: float


async def restore_backup(
    settings: Settings,
    archive: Archive,
    manifest: Manifest,
    *,
    position: int | None = None,
    time: datetime | None = None,
) -> Restored:
    """Restore a backup into the empty database that the settings name, and apply the migrations there if need be.

    Args:
        position, time: only the events up to this position, and up to the first one that was appended after this time.
            Tenants, users and keys are those of the backup.

    Raises:
        BackupDamaged: a file is missing or damaged. The database is empty as before.
        DatabaseNotEmpty: it has events or tenants already. Nothing was changed.
    """
    if time is not None and time.tzinfo is None:
        raise InputError(f"time: {time} has no time zone")
    began = monotonic()
    limits = {
        "position": _HIGHEST_POSITION if position is None else position,
        "time": datetime.max.replace(tzinfo=UTC) if time is None else time,
    }
    if (url := settings.server_url()) is not None:
        Migrator(url, settings).up()
    async with EventStore(settings) as store:
        async with await store.connect(None) as connection:
            with translated():
                async with connection.transaction():
                    await set_role(connection, settings, OWNER)
                    events, last = await _fill(connection, archive, manifest, limits)
        await catch_up(store, load_projections(settings.projections))
    return Restored(events, last, monotonic() - began)


async def _fill(
    connection: Connection, archive: Archive, manifest: Manifest, limits: dict[str, Any]
) -> tuple[int, int]:
    """Fill the log and the tables beside it; return the number of events, and the position of the last one."""

    async def execute(name: str, given: dict[str, Any] | None = None) -> Any:
        return await connection.execute(query("agent_manager.backup", name), given)

    await connection.execute("LOCK TABLE events IN EXCLUSIVE MODE")
    if (await (await execute("is_empty")).fetchone()) != (True,):
        raise DatabaseNotEmpty(
            f"the database {connection.info.dbname} has events or tenants already: restore into a new one"
        )
    await execute("begin_restore")
    await execute("clear_tenants")
    await execute("received_events")
    events = 0
    for segment in manifest.segments:
        await _receive(connection, archive, segment, "received_events")
        deleted = (await execute("delete_later", limits)).rowcount
        events += (await execute("add_received")).rowcount
        await execute("clear_received")
        if deleted:
            break
    for table, part in manifest.tables.items():
        await _receive(connection, archive, part, table)
    await execute("add_members")
    number, last, wrong = await (await execute("check_events")).fetchone()
    if wrong is not None:
        segment = next(each for each in manifest.segments if each.first <= wrong <= each.last)
        raise BackupDamaged(segment.name, f"the event at position {wrong} has not the digest of its content")
    assert number == events
    await execute("set_position", {"position": last})
    return events, last


async def _receive(connection: Connection, archive: Archive, part: Part, table: str) -> None:
    """Copy a file of the backup into a table."""
    columns = sql.SQL(", ").join(map(sql.Identifier, part.columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for text in archive.read_part(part):
            await copy.write(text)


# A drill


@dataclass(frozen=True, slots=True)
class Drill:
    """The outcome of a drill.

    Attributes:
        backup_id: the backup that was restored.
        events: the number of restored events; each has the digest that the live log has for it.
        recovery_seconds: how long the restore took, read tables included: the recovery time (RTO).
        age_seconds: the age of the backup; what was written since then would be lost (RPO).
        events_since: the number of events that were appended since then.
    """

    backup_id: str
    events: int
    recovery_seconds: float
    age_seconds: float
    events_since: int


class DrillFailed(EventStoreError):
    """What was restored differs from the live log."""


async def drill(store: EventStore, archive: Archive) -> Drill:
    """Restore the newest backup into an embedded server in a temporary folder, and compare its log with the live one.

    The folder (``TMPDIR``) takes about as much as the live log does. The live server is only read from.

    Raises:
        DrillFailed: the restored log differs from the live one.
    """
    manifest = archive.manifest()
    age = (datetime.now(UTC) - manifest.created_at).total_seconds()
    with TemporaryDirectory(prefix="eventstore-drill-") as folder:
        named = {name: None for name in Settings.model_fields if name.startswith(("database_url", "postgres_"))}
        others = {"listen_url": None, "read_url": None, "pg_port": None, "data_dir": Path(folder) / "data"}
        settings = store.settings.model_copy(update=named | others)
        restored = await restore_backup(settings, archive, manifest)
        async with (
            EventStore(settings) as other_store,
            await other_store.connect(PROJECTOR) as other,
            await store.connect(PROJECTOR) as live,
        ):
            for segment in manifest.segments:
                limits = {"first": segment.first, "last": segment.last}
                if await _digest(live, settings, limits) != await _digest(other, settings, limits):
                    raise DrillFailed(
                        f"the live log and the backup {manifest.id} differ between the positions {segment.first} "
                        f"and {segment.last}: one of them was changed; keep both, and compare them"
                    )
            since, _ = await _digest(live, settings, {"first": manifest.position + 1, "last": _HIGHEST_POSITION})
    return Drill(manifest.id, restored.events, restored.seconds, age, since)


async def _digest(connection: Connection, settings: Settings, limits: dict[str, int]) -> tuple[int, str]:
    """Return the number of the events between two positions, and a digest of theirs."""
    with translated():
        async with connection.transaction():
            await set_role(connection, settings, PROJECTOR)
            cursor = await connection.execute(query("agent_manager.backup", "digest_of_segment"), limits)
            [row] = await cursor.fetchall()
    return row[0], row[1]
