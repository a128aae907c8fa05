"""Making a backup: the events since the last one, the tenants, users and keys, and the large files of events.

The log is read as far as it is final (``docs/concepts/order.md``), a segment in each statement, so that no snapshot is
held for long; readers and writers are not blocked. Memory is constant. After an interruption the next backup continues
behind the last complete segment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal
from zlib import crc32

from psycopg import sql

from agent_manager.backup.archive import Archive, PartWriter
from agent_manager.backup.erasures import write_erasures
from agent_manager.backup.manifest import (
    EVENT_COLUMNS,
    FOLDERS,
    FORMAT,
    SEALED_TABLES,
    TABLES,
    Manifest,
    Part,
    SealedPart,
    Segment,
)
from eventstore import EventStore
from eventstore.database.connection import APP, PROJECTOR, Connection, set_role
from eventstore.database.queries import query
from eventstore.errors import ConflictError, InputError, translated
from eventstore.read import horizon

SEGMENT_EVENTS = 50_000
SEGMENT_BYTES = 64 * 1024 * 1024
"""The size of a segment, by the server's estimate of the text. One below half of both is written anew by the next
backup with the events that follow, so that frequent backups do not leave many small ones."""

HORIZON_SECONDS = 10.0
"""Seconds that a backup waits for appends in flight, so that everything that was acknowledged before is in it. Appends
take milliseconds; what takes longer is a caller's open transaction, which no limit would outlast."""
_POLL_SECONDS = 0.02


class BackupRunning(ConflictError):
    """Another process is making a backup of the same database."""

    TEXT = "another process is making a backup of this database: wait until it has ended"

    def __init__(self) -> None:
        super().__init__(self.TEXT)


class BackupMismatch(InputError):
    """The backups in a target are of another log."""


async def create_backup(
    store: EventStore,
    archive: Archive,
    *,
    is_full: bool = False,
    on_progress: Callable[[Manifest], None] = lambda _: None,
) -> Manifest:
    """Make a backup.

    Args:
        is_full: write the whole log anew. The same events usually make the same files, so this also repairs damaged
            files of earlier backups.

    Raises:
        BackupRunning: another process is making one.
        BackupMismatch: the target has backups of another log.
    """
    async with await store.connect(PROJECTOR) as reading, await store.connect(APP) as locking:
        writer = _Writer(reading, store, archive)
        with translated():
            async with exclusively(locking, store, "backups", BackupRunning):
                created_at = datetime.now(UTC)
                position, first_missing = await _final_position(store)
                await write_erasures(store, archive)
                segments = () if is_full else await writer.earlier_segments()
                manifest = Manifest(
                    format=FORMAT,
                    created_at=created_at,
                    complete_to=min(created_at, first_missing or created_at),
                    position=max(position, segments[-1].last if segments else 0),
                    server_version=".".join(map(str, divmod(reading.info.server_version, 10000))),
                    segments=segments,
                    tables={},
                )
                after = segments[-1].last if segments else 0
                while segment := await writer.events(after, manifest.position, SEGMENT_EVENTS, SEGMENT_BYTES):
                    after = segment.last
                    manifest = manifest.model_copy(update={"segments": (*manifest.segments, segment)})
                    archive.write_manifest(manifest, is_complete=False)
                    on_progress(manifest)
                tables = await writer.tables()
                sealed = await writer.sealed_log(archive.sealed_parts() if segments else (), manifest.position)
                manifest = manifest.model_copy(update={"tables": tables, "sealed": sealed})
                archive.write_manifest(manifest, is_complete=True)
    return manifest


async def _final_position(store: EventStore) -> tuple[int, datetime | None]:
    """Return the position up to which the log is final, once it includes all that was appended before this call.

    After ``HORIZON_SECONDS`` return the position that was reached, and the time of the first event that lies beyond it.
    """
    pool = store.connections.projector
    [(last,)] = await pool.fetch(query("agent_manager.backup", "last_position"))
    deadline = monotonic() + HORIZON_SECONDS
    while (reached := await horizon(pool)) < last:
        if monotonic() >= deadline:
            break
        await asyncio.sleep(_POLL_SECONDS)
    between = {"after": reached, "last": last}
    [(first_missing,)] = await pool.fetch(query("agent_manager.backup", "time_after"), between)
    return reached, first_missing


@asynccontextmanager
async def exclusively(
    connection: Connection,
    store: EventStore,
    work: Literal["backups", "drills", "retention"],
    running: type[ConflictError],
    tenant: str | None = None,
) -> AsyncIterator[None]:
    """Exclude other processes from a kind of work during the block, in a transaction that holds no snapshot.

    Args:
        tenant: only from that for a tenant; None for work that concerns all tenants.

    Raises:
        running: another process does such work.
    """
    async with connection.transaction():
        await set_role(connection, store.settings, APP)
        kind = ("backups", "drills", "retention").index(work)
        given = {"kind": kind if tenant is None else -1 - (crc32(f"{kind} {tenant}".encode()) >> 1)}
        [(is_free,)] = await (await connection.execute(query("agent_manager.backup", "lock"), given)).fetchall()
        if not is_free:
            raise running
        yield


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the files of a backup; ``connection`` reads what they hold."""

    connection: Connection
    store: EventStore
    archive: Archive

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        async with self.connection.transaction():
            await self._become(PROJECTOR)
            yield

    async def _become(self, role: str) -> None:
        await set_role(self.connection, self.store.settings, role)

    async def _fetch(self, name: str, given: dict[str, Any]) -> list[tuple[Any, ...]]:
        return await (await self.connection.execute(query("agent_manager.backup", name), given)).fetchall()

    async def earlier_segments(self) -> tuple[Segment, ...]:
        """Return the segments in the archive that this backup continues.

        Those with events that were erased since are written again.

        Raises:
            BackupMismatch: the log does not have the last event of theirs.
        """
        segments = self.archive.longest_log()
        if not segments:
            return ()
        last = segments[-1]
        async with self._transaction():
            found = await self._fetch("digest_at", {"position": last.last})
        if found != [(last.last_digest,)]:
            raise BackupMismatch(
                f"{self.archive.target} has backups of another log: its event at position {last.last} is not in this "
                "database: give another directory or bucket"
            )
        if 2 * last.rows < SEGMENT_EVENTS and 2 * last.text_bytes < SEGMENT_BYTES:
            segments = segments[:-1]
        ends = {"firsts": [each.first for each in segments], "lasts": [each.last for each in segments]}
        async with self._transaction():
            counts = await self._fetch("count_erased", ends)
        current = []
        for segment, (erased,) in zip(segments, counts, strict=True):
            if erased != segment.erased:
                written = await self.events(segment.first - 1, segment.last)
                assert written is not None
                segment = written
            current.append(segment)
        return tuple(current)

    async def events(self, after: int, until: int, limit: int | None = None, size: int = 2**62) -> Segment | None:
        """Write the events after a position up to another, as many as fit; return None if there are none."""
        given = {"after": after, "horizon": until, "limit": limit, "bytes": size}
        with PartWriter() as writer:
            first_row = last_row = b""
            erased = 0
            async with self._transaction():
                async for row in self._copied(query("agent_manager.backup", "events"), given):
                    writer.write(row)
                    erased += row.rsplit(b"\t", 2)[1] == rb"\N"
                    first_row, last_row = first_row or row, row
            if not last_row:
                return None
            first, last = (int(row.partition(b"\t")[0]) for row in (first_row, last_row))
            fields = last_row.decode().rstrip("\n").split("\t")
            saved = writer.save(self.archive.target, f"log/{first:019}-{last:019}")
        return Segment(
            **saved,
            columns=EVENT_COLUMNS,
            first=first,
            last=last,
            last_digest=fields[-1].removeprefix("\\\\x"),
            last_time=datetime.fromisoformat(fields[1]),
            text_bytes=writer.text_bytes,
            erased=erased,
        )

    async def tables(self) -> dict[str, Part]:
        """Write the tables beside the log as they are at one moment."""
        parts = {}
        async with self.connection.transaction():
            await self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for table, columns in TABLES.items():
                await self._become(APP if FOLDERS[table] == "identity" else PROJECTOR)
                names = sql.SQL(", ").join(map(sql.Identifier, columns))
                statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(names, sql.Identifier(table))
                with PartWriter() as writer:
                    async for row in self._copied(statement, {}):
                        writer.write(row)
                    saved = writer.save(self.archive.target, f"{FOLDERS[table]}/{table}")
                parts[table] = Part(**saved, columns=columns)
        return parts

    async def sealed_log(self, earlier: tuple[SealedPart, ...], position: int) -> tuple[SealedPart, ...]:
        """Write what was sealed since earlier backups, of events up to a position; return all parts.

        The cosignatures of the newest checkpoint may still arrive: the next backup has them.
        """
        parts: list[SealedPart] = []
        async with self.connection.transaction():
            await self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await self._become(PROJECTOR)
            [lasts] = await self._fetch("sealed_ends", {"position": position})
            for table, last in zip(SEALED_TABLES, lasts, strict=True):
                kept = [part for part in earlier if part.table == table]
                if (
                    kept
                    and last > kept[-1].last
                    and 2 * kept[-1].rows < SEGMENT_EVENTS
                    and kept[-1].size < SEGMENT_BYTES
                ):
                    kept.pop()  # so that frequent backups do not leave many small files
                after = kept[-1].last if kept else 0
                parts += kept
                if last <= after:
                    continue
                with PartWriter() as writer:
                    given = {"after": after, "last": last}
                    async for row in self._copied(query("agent_manager.backup", f"copy_{table}"), given):
                        writer.write(row)
                    if writer.rows:
                        saved = writer.save(self.archive.target, f"audit/{table}-{last:019}")
                        columns = SEALED_TABLES[table]
                        parts.append(SealedPart(**saved, columns=columns, table=table, after=after, last=last))
        return tuple(parts)

    async def _copied(self, statement: Any, given: dict[str, Any]) -> AsyncIterator[bytes]:
        """Yield the rows of a COPY statement, in a format that does not depend on the login's settings."""
        await self.connection.execute(query("agent_manager.backup", "output_format"))
        async with self.connection.cursor() as cursor, cursor.copy(statement, given or None) as copy:
            async for row in copy:
                yield bytes(row)
