"""Restoring a backup into an empty database.

First every file is compared with its SHA-256. The log is restored in one transaction: an error leaves the database
empty. The transaction holds the lock of an append, so that no worker passes the events before they can be seen. Before
it commits, the digest of every event is computed anew and the events are counted; if the log was sealed, it must have
the roots of all checkpoints, which are restored with it. What was erased after the backup was made is erased again,
before anybody can see it, by the receipts beside the backups. Then the read tables are filled from the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from psycopg import sql

from agent_manager.audit.notes import Policy
from agent_manager.audit.sealer import read_keys
from agent_manager.audit.verify import verify_log
from agent_manager.backup.archive import Archive, BackupDamaged
from agent_manager.backup.erasures import apply_erasures
from agent_manager.backup.manifest import FOLDERS, SEALED_TABLES, Manifest, Part, Segment
from agent_manager.settings import server_settings
from eventstore import EventStore, Settings
from eventstore.administration import record_act
from eventstore.database.connection import Connection, set_role
from eventstore.database.migrate import Migrator
from eventstore.database.queries import query
from eventstore.errors import ConflictError, EventStoreError, InputError, translated
from projections import catch_up, load_projections, rebuild

OWNER = "eventstore_owner"
_HIGHEST_POSITION = 2**63 - 1
_HOLDS = "legal_holds"
"""Restored last: a hold that was released after the backup was made does not stop what was erased then."""
REBUILD_EVENTS = 100_000
"""From this many events on the read tables are rebuilt: filled over two connections, before they have indexes. It takes
a third of the time of following the log; for few events, some seconds more."""


class DatabaseNotEmpty(ConflictError):
    """The database has events or tenants already."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The outcome of restoring a backup.

    Attributes:
        erased_again: conversations with events that were erased after the backup was made, and again now.
        seconds: until the read tables were complete.
    """

    events: int
    position: int
    erased_again: int
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
        BackupDamaged: a file is missing or damaged; the database was not touched. Or an event has not the digest of its
            content, or is missing; the database is empty as before.
        DatabaseNotEmpty: it has events or tenants already. Nothing was changed.
        SchemaError: it has a schema of another version. Nothing was changed.
    """
    if time is not None and time.tzinfo is None:
        raise InputError(f"time: {time} has no time zone")
    began = monotonic()
    limits = {
        "position": _HIGHEST_POSITION if position is None else position,
        "time": datetime.max.replace(tzinfo=UTC) if time is None else time,
    }
    manifest = manifest.model_copy(update={"segments": _segments_up_to(manifest, limits)})
    for part in manifest.parts:
        archive.check_part(part)
    erasures, newest = archive.erasures(), archive.newest() or manifest
    if (url := settings.server_url()) is not None and not _has_schema(migrator := Migrator(url, settings)):
        migrator.up()
    async with EventStore(settings) as store:
        async with await store.connect(None) as connection:
            with translated():
                async with connection.transaction():
                    await set_role(connection, settings, OWNER)
                    events, last = await _fill(connection, archive, manifest, limits)
                    await _restore_sealed(connection, settings, archive, manifest, last)
                    details = {"backup": manifest.id, "events": events, "position": last}
                    await record_act(connection, None, "backup_restored", details)
                    await _forget_users(connection, archive, newest)
                    erased_again = await apply_erasures(connection, store, erasures)
                    if (holds := manifest.tables.get(_HOLDS)) is not None:
                        await set_role(connection, settings, OWNER)
                        await connection.execute(query("agent_manager.backup", "stop_recording"))
                        await _receive(connection, archive, holds, _HOLDS)
                        await connection.execute(query("agent_manager.backup", "resume_recording"))
        projections = load_projections(settings.projections)
        if events >= REBUILD_EVENTS:
            await rebuild(store, projections, accept_differences=True)
        await catch_up(store, projections)
    return Restored(events, last, erased_again, monotonic() - began)


def _segments_up_to(manifest: Manifest, limits: dict[str, Any]) -> tuple[Segment, ...]:
    """Return the segments that may have an event up to a position and a time."""
    needed = []
    for segment in manifest.segments:
        if segment.first > limits["position"]:
            break
        needed.append(segment)
        if segment.last_time > limits["time"]:
            break
    return tuple(needed)


def _has_schema(migrator: Migrator) -> bool:
    """Return whether the database exists and has a schema of the store, of whatever version."""
    with suppress(EventStoreError):
        return any(migration.applied for migration in migrator.status())
    return False


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
    await execute("stop_recording")
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
        if table == _HOLDS:
            continue
        if FOLDERS[table] == "identity":
            await _receive(connection, archive, part, table)
        else:
            await _receive_apart(connection, archive, [part], table)  # COPY cannot write to it: it has RLS
            await execute(f"add_{table}")
    await execute("resume_recording")
    await execute("add_members")
    number, last, wrong = await (await execute("check_events")).fetchone()
    if wrong is not None:
        segment = next(each for each in manifest.segments if each.first <= wrong <= each.last)
        raise BackupDamaged(segment.name, f"the event at position {wrong} has not the digest of its content")
    assert number == events
    if (gap := await (await execute("first_gap")).fetchone()) is not None:
        raise BackupDamaged(
            f"manifests/{manifest.id}.json", f"the conversation {gap[0]} lacks events: a segment is missing"
        )
    # The positions of events that are left out are not assigned again: a consumer that has seen them would take other
    # events there for known.
    await execute("set_position", {"position": manifest.position})
    return events, last


async def _restore_sealed(
    connection: Connection, settings: Settings, archive: Archive, manifest: Manifest, last: int
) -> None:
    """Restore the sealed log up to a position, and verify the events against it; if there is a key, also signatures.

    Raises:
        BackupDamaged: the events are not those that were sealed.
    """
    if not manifest.sealed:
        return
    for table in SEALED_TABLES:
        await _receive_apart(connection, archive, [part for part in manifest.sealed if part.table == table], table)
        await connection.execute(query("agent_manager.backup", f"add_{table}"), {"position": last})
    keys = server_settings(settings)

    async def fetch(statement: Any, parameters: Any) -> list[Any]:
        return await (await connection.execute(statement, parameters, binary=True)).fetchall()

    policy = Policy(read_keys(keys).keys) if keys.audit_key is not None else None
    found = await verify_log([fetch], policy, until=last)
    if found.faults and found.sealed_at is not None:
        fault = found.faults[0]
        segments = [each for each in manifest.segments if fault.position and each.first <= fault.position <= each.last]
        name = segments[0].name if segments else f"manifests/{manifest.id}.json"
        raise BackupDamaged(name, fault.message)


async def _forget_users(connection: Connection, archive: Archive, newest: Manifest) -> None:
    """Delete the users who were erased after the backup was made, as far as the newest backup knows of it."""
    if (part := newest.tables.get("identity_erasures")) is None:
        return
    await _receive_apart(connection, archive, [part], "identity_erasures")
    for name in ("forget_erased_users", "add_erased_users"):
        await connection.execute(query("agent_manager.backup", name))


async def _receive_apart(connection: Connection, archive: Archive, parts: Iterable[Part], table: str) -> None:
    """Copy files of the backup into ``received_`` and the table's name, a temporary table with the same columns."""
    names = sql.Identifier(f"received_{table}"), sql.Identifier(table)
    await connection.execute(sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {}) ON COMMIT DROP").format(*names))
    for part in parts:
        await _receive(connection, archive, part, f"received_{table}")


async def _receive(connection: Connection, archive: Archive, part: Part, table: str) -> None:
    """Copy a file of the backup into a table."""
    columns = sql.SQL(", ").join(map(sql.Identifier, part.columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for text in archive.read_part(part):
            await copy.write(text)
