"""Verifying backups without a database: every byte of every file, and the digest of every event.

The log of a database can be compared with a backup too, as after restoring it by other means.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from agent_manager.audit.proofs import event_digest
from agent_manager.backup.archive import Archive, BackupDamaged
from agent_manager.backup.manifest import Manifest, Part, Segment
from eventstore import EventStore, Settings
from eventstore.database.connection import PROJECTOR, Connection, set_role
from eventstore.database.queries import query
from eventstore.errors import translated

_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that cannot be restored."""

    name: str
    reason: str


def verify_backups(archive: Archive, backup_id: str | None = None) -> tuple[list[Manifest], list[Fault]]:
    """Read the files of all backups, or of one, and return the manifests and what is wrong.

    A file that several backups share is read once.

    Raises:
        NotFound: there is no backup, or none with this id.
    """
    if backup_id is None and archive.ids():
        manifests, damaged = archive.manifests()
    else:
        manifests, damaged = [archive.manifest(backup_id)], []
    faults = [Fault(error.name, error.reason) for error in damaged]
    for name, part in {part.name: part for manifest in manifests for part in manifest.parts}.items():
        try:
            if isinstance(part, Segment):
                _check_events(archive, part)
            else:
                for _ in _check_rows(archive, part):
                    continue
        except BackupDamaged as error:
            faults.append(Fault(name, error.reason))
    return manifests, faults


async def compare_with_database(store: EventStore, archive: Archive, manifest: Manifest) -> list[Fault]:
    """Compare the log of a backup with that of a database: return the files with whose events it differs.

    It differs if it lacks an event, has others, or has one that has not the digest of its content. Events after those
    of the backup are not looked at.
    """
    faults = []
    async with await store.connect(PROJECTOR) as connection:
        for segment in manifest.segments:
            digest, rows = sha256(), 0
            for line in _check_rows(archive, segment):
                digest.update(bytes.fromhex(line.rpartition(b"x")[2].decode()))
                rows += 1
            found = await digest_of(connection, store.settings, segment)
            if found != (rows, digest.hexdigest(), None):
                faults.append(Fault(segment.name, f"the database has other events ({found[0]}, not {rows})"))
    return faults


async def digest_of(connection: Connection, settings: Settings, segment: Segment) -> tuple[Any, ...]:
    """Return the number of the events of a database between the positions of a segment, and a digest of theirs.

    The third value is the position of the first one that has not the digest of its content, None if there is none.
    """
    limits = {"first": segment.first, "last": segment.last}
    with translated():
        async with connection.transaction():
            await set_role(connection, settings, PROJECTOR)
            cursor = await connection.execute(query("agent_manager.backup", "digest_of_segment"), limits)
            [row] = await cursor.fetchall()
    return tuple(row)


def _check_events(archive: Archive, segment: Segment) -> None:
    """Raise BackupDamaged unless a segment holds its events in order, each with the digest of its content."""
    before, position = segment.first - 1, 0
    for line in _check_rows(archive, segment):
        fields = [None if field == rb"\N" else _ESCAPE.sub(_unescaped, field) for field in line.split(b"\t")]
        try:
            position, digest, is_erased = int(fields[0] or 0), fields[-1], fields[-2] is None
            is_right = is_erased or digest == rb"\x" + _digest(fields).hex().encode()
        except (ValueError, struct.error, OverflowError):
            raise BackupDamaged(segment.name, f"a row after position {before} is not an event") from None
        if not before < position <= segment.last or (before < segment.first != position):
            raise BackupDamaged(segment.name, f"the event at position {position} is not in its place")
        if not is_right:
            raise BackupDamaged(segment.name, f"the event at position {position} has not the digest of its content")
        before = position
    if position != segment.last:
        raise BackupDamaged(segment.name, f"ends at position {position}, not at {segment.last}")


def _check_rows(archive: Archive, part: Part) -> Iterator[bytes]:
    """Yield the rows of a file. Raise BackupDamaged unless each has as many fields as the file has columns."""
    rest = b""
    for chunk in archive.read_part(part):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.count(b"\t") + 1 != len(part.columns):
                raise BackupDamaged(part.name, "a row has not one field for each column")
            yield line
    if rest:
        raise BackupDamaged(part.name, "ends within a row")


def _unescaped(match: re.Match[bytes]) -> bytes:
    return _ESCAPES.get(match[1], match[1])


def _digest(fields: list[bytes | None]) -> bytes:
    """Return the digest of an event, given its columns in PostgreSQL's text format."""
    position, timestamp, version, schema_version, conversation, event_id, *texts, salt, _ = (
        field or b"" for field in fields
    )
    return event_digest(
        bytes.fromhex(salt.decode()[2:]),
        int(position),
        datetime.fromisoformat(timestamp.decode()),
        int(version),
        int(schema_version),
        UUID(conversation.decode()),
        UUID(event_id.decode()),
        texts,
    )
