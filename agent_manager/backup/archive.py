"""The files of backups: written, listed, read with every byte checked, and deleted.

::

    log/<first>-<last>-<hash>.copy.gz     a segment: events in the order of the log
    log/incomplete.json                   the segments of a backup that was interrupted, which the next one continues
    identity/<table>-<hash>.copy.gz       tenants, users, keys, retention rules or legal holds at the time of a backup
    audit/<table>-<last>-<hash>.copy.gz   tiles, checkpoints or cosignatures of the sealed log
    files/<table>-<hash>.copy.gz          the large files that events refer to, at the time of a backup
    erasures/<id>.json                    the receipt of an erasure, by the id of its event
    manifests/<id>.json                   one backup: the segments and tables that it consists of, with their SHA-256
    drill.json                            the outcome of the last drill

Segments and tables are in the text format of PostgreSQL's COPY, compressed by gzip, so that ``zcat`` and ``psql`` alone
can read them. The log is append-only: a backup writes the events since the last one, and its manifest names the earlier
segments again, except for those with events that were erased since: they are written anew. Files appear under their
names only when they are complete. A name contains the beginning of the content's SHA-256, so that no backup replaces a
file of another one by other content. A manifest holds its own SHA-256; so nothing that a manifest names can be damaged
without being noticed.

Receipts of erasures belong to no backup and are never deleted: whichever backup is restored, what was erased after it
was made is erased again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, takewhile
from pathlib import PurePath
from tempfile import TemporaryFile
from typing import Any, Self
from uuid import UUID

from agent_manager.backup.manifest import FORMAT, ErasureRecord, Manifest, Part, SealedPart, Segment
from agent_manager.backup.targets import CHUNK_BYTES, Bucket, Folder, StoredFile
from eventstore.errors import InputError, NotFound, printable
from eventstore.ids import is_canonical_uuid

_GZIP = 16 + zlib.MAX_WBITS
_FOLDERS = ("log", "identity", "files", "audit", "manifests")
_INCOMPLETE, _DRILL = "log/incomplete.json", "drill.json"


class BackupDamaged(InputError):
    """A file of a backup is missing, or is not as it was written."""

    def __init__(self, name: str, reason: str) -> None:
        remedy = (
            "delete it" if name.startswith("manifests") else "make a complete one (eventstore backup create --full)"
        )
        super().__init__(f"{printable(name)}: {reason}: use another backup (eventstore backup list), and {remedy}")
        self.name = name
        self.reason = reason


class Archive:
    """The backups in a target."""

    def __init__(self, target: Folder | Bucket) -> None:
        self.target = target

    def ids(self) -> list[str]:
        """Return the ids of the backups, oldest first."""
        names = sorted(self.target.files("manifests"))
        return [name.removeprefix("manifests/").removesuffix(".json") for name in names if name.endswith(".json")]

    def manifest(self, backup_id: str | None = None) -> Manifest:
        """Return a backup, by default the newest.

        Raises:
            NotFound: there is none, or none with this id.
            BackupDamaged: its manifest is damaged.
        """
        ids = self.ids()
        if backup_id is None:
            if not ids:
                raise NotFound(f"{self.target} has no backup: make one with eventstore backup create")
            backup_id = ids[-1]
        elif backup_id not in ids:
            raise NotFound(f"{self.target} has no backup {printable(backup_id)!r}: eventstore backup list shows them")
        return self._read_manifest(f"manifests/{backup_id}.json")

    def manifests(self) -> tuple[list[Manifest], list[BackupDamaged]]:
        """Return all backups, oldest first, and the errors of those whose manifests are damaged."""
        intact, damaged = [], []
        for each in self.ids():
            try:
                intact.append(self.manifest(each))
            except BackupDamaged as error:
                damaged.append(error)
        return intact, damaged

    def newest(self) -> Manifest | None:
        """Return the newest backup whose manifest is intact; None if there is none."""
        for each in reversed(self.ids()):
            with suppress(BackupDamaged):
                return self.manifest(each)
        return None

    def incomplete(self) -> Manifest | None:
        """Return what an interrupted backup has written; None if there is nothing of use."""
        with suppress(BackupDamaged):
            return self._read_manifest(_INCOMPLETE)
        return None

    def longest_log(self) -> tuple[Segment, ...]:
        """Return the segments that reach farthest, of all backups and of what an interrupted one has written.

        They end before the first one whose file is missing or has another size.
        """
        manifests, _ = self.manifests()
        incomplete = self.incomplete()
        logs = [each.segments for each in (*manifests, *([incomplete] if incomplete else []))]
        files = self.target.files("log")
        # Of two that reach as far, the newer: segments with erased events are written anew.
        longest = max(reversed(logs), key=lambda segments: segments[-1].last if segments else 0, default=())

        def is_whole(segment: Segment) -> bool:
            return segment.name in files and files[segment.name].size == segment.size

        return tuple(takewhile(is_whole, longest))

    def sealed_parts(self) -> tuple[SealedPart, ...]:
        """Return the parts of the sealed log in the newest backup; none if a file of theirs is missing."""
        newest = self.newest()
        parts = newest.sealed if newest else ()
        files = self.target.files("audit")
        return parts if all(part.name in files and files[part.name].size == part.size for part in parts) else ()

    def write_manifest(self, manifest: Manifest, *, is_complete: bool) -> None:
        """Write the manifest of a backup; a complete one ends the incomplete one."""
        name = f"manifests/{manifest.id}.json" if is_complete else _INCOMPLETE
        self.target.write(name, iter((_document(manifest.model_dump_json(indent=1)),)))
        if is_complete:
            self.target.delete(_INCOMPLETE)

    def unnamed_files(self, manifests: Iterable[Manifest]) -> dict[str, StoredFile]:
        """Return the files that no manifest among these names: remnants, or of a backup that is being made."""
        named = {part.name for manifest in manifests for part in manifest.parts} | {_INCOMPLETE}
        named |= {f"manifests/{each}.json" for each in self.ids()}
        return {name: file for name, file in self.files().items() if name not in named}

    def files(self) -> dict[str, StoredFile]:
        """Return the files in all folders by name."""
        return dict(chain(*(self.target.files(folder).items() for folder in _FOLDERS)))

    def write_erasures(self, records: Iterable[ErasureRecord]) -> int:
        """Write the receipts that the target does not have; return their number."""
        known, written = self.target.files("erasures"), 0
        for record in records:
            name = f"erasures/{record.id}.json"
            if name not in known:
                self.target.write(name, iter((_document(record.model_dump_json(indent=1), "erasure"),)))
                written += 1
        return written

    def erasure_ids(self) -> list[UUID]:
        """Return the ids of the receipts of erasures."""
        found = (PurePath(name) for name in self.target.files("erasures"))
        return [UUID(path.stem) for path in found if is_canonical_uuid(path.stem)]  # others are of interrupted writes

    def erasures(self, ids: Iterable[UUID] | None = None) -> list[ErasureRecord]:
        """Return the receipts of erasures, in their order.

        Args:
            ids: of those that are wanted; None for all.

        Raises:
            InputError: one is not as it was written.
        """
        records = []
        for each in self.erasure_ids() if ids is None else ids:
            name = f"erasures/{each}.json"
            raw = b"".join(self.target.read(name))
            try:
                text = json.loads(raw)["erasure"]
                record = ErasureRecord.model_validate_json(text)
                is_intact = _document(text, "erasure") == raw
            except (ValueError, KeyError, TypeError, RecursionError):
                is_intact = False
            if not is_intact:
                raise InputError(
                    f"{printable(name)}: is not the receipt of an erasure that was written: get it from a copy of "
                    f"{self.target}, or delete it and run eventstore backup create on the database that erased"
                )
            records.append(record)
        return sorted(records, key=lambda record: (record.erased_at, record.id))

    def write_drill(self, record: bytes) -> None:
        """Keep the outcome of a drill."""
        self.target.write(_DRILL, iter((record,)))

    def read_drill(self) -> bytes:
        """Return the outcome of the last drill; empty if there was none."""
        with suppress(FileNotFoundError):
            return b"".join(self.target.read(_DRILL))
        return b""

    def _read_manifest(self, name: str) -> Manifest:
        manifest = None
        try:
            raw = b"".join(self.target.read(name))
            text = json.loads(raw)["manifest"]
            if _document(text) == raw:
                if (found := json.loads(text)["format"]) != FORMAT:
                    raise InputError(
                        f"{name}: is in format {found}, this version reads {FORMAT}: use the version that wrote it"
                    )
                manifest = Manifest.model_validate_json(text)
        except FileNotFoundError:
            raise BackupDamaged(name, "is missing") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        if manifest is None or name not in (_INCOMPLETE, f"manifests/{manifest.id}.json"):
            raise BackupDamaged(name, "is not the manifest that was written")
        return manifest

    def check_part(self, part: Part) -> None:
        """Read a file without decompressing it.

        Raises:
            BackupDamaged: it is missing, or not as it was written.
        """
        for _ in self._compressed(part):
            pass

    def read_part(self, part: Part) -> Iterator[bytes]:
        """Yield the uncompressed text of a file in chunks; a consumer that reads to the end knows that all is intact.

        Raises:
            BackupDamaged: it is missing, or not as it was written.
        """
        rows, decompressor = 0, zlib.decompressobj(_GZIP)
        try:
            for chunk in self._compressed(part):
                while chunk and not decompressor.eof:
                    text = decompressor.decompress(chunk, CHUNK_BYTES)
                    chunk = decompressor.unconsumed_tail
                    rows += text.count(b"\n")
                    yield text
            text = decompressor.flush()
        except zlib.error:
            raise BackupDamaged(part.name, "is damaged") from None
        rows += text.count(b"\n")
        yield text
        if rows != part.rows or not decompressor.eof:
            raise BackupDamaged(part.name, f"has {rows} rows, not {part.rows}")

    def _compressed(self, part: Part) -> Iterator[bytes]:
        """Yield the bytes of a file; at its end, check its size and its SHA-256."""
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in self.target.read(part.name):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        except FileNotFoundError:
            raise BackupDamaged(part.name, "is missing") from None
        if (size, digest.hexdigest()) != (part.size, part.sha256):
            raise BackupDamaged(part.name, "is damaged: it differs from its SHA-256 in the manifest")


def _document(text: str, kind: str = "manifest") -> bytes:
    """Return the content of a manifest's or a receipt's file, to the byte."""
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), kind: text}, indent=1).encode()


class PartWriter:
    """The text of a file of a backup, compressed into a temporary file until its name is known."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._compressor = zlib.compressobj(wbits=_GZIP)
        self._digest = hashlib.sha256()
        self.text_bytes = 0
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, text: bytes) -> None:
        """Add whole rows, each with a line feed at its end."""
        self._add(self._compressor.compress(text))
        self.text_bytes += len(text)
        self.rows += text.count(b"\n")

    def save(self, target: Folder | Bucket, stem: str) -> dict[str, Any]:
        """Write the file, and return the members of its :class:`Part` except for the columns."""
        self._add(self._compressor.flush())
        digest, size = self._digest.hexdigest(), self._file.tell()
        name = f"{stem}-{digest[:16]}.copy.gz"
        self._file.seek(0)
        target.write(name, iter(lambda: self._file.read(CHUNK_BYTES), b""))
        return {"name": name, "rows": self.rows, "size": size, "sha256": digest}

    def _add(self, compressed: bytes) -> None:
        self._digest.update(compressed)
        self._file.write(compressed)


# The rules by which backups are kept, and the deletion of the others

REMNANT_AGE = timedelta(days=1)
"""The age from which a file that no backup names is a remnant. A backup names its files within minutes."""


@dataclass(frozen=True)
class Retention:
    """The backups that are kept: the last one of each of so many days, weeks (ISO) and months in UTC that have one.

    The newest is always kept.
    """

    daily: int = 7
    weekly: int = 4
    monthly: int = 12

    def kept(self, manifests: Sequence[Manifest]) -> set[str]:
        """Return the ids of the backups to keep."""
        newest_first = sorted(manifests, key=lambda manifest: manifest.created_at, reverse=True)
        kept = {manifest.id for manifest in newest_first[:1]}
        periods: tuple[tuple[int, Callable[[datetime], object]], ...] = (
            (self.daily, lambda time: time.date()),
            (self.weekly, lambda time: time.isocalendar()[:2]),
            (self.monthly, lambda time: (time.year, time.month)),
        )
        for number, period_of in periods:
            last_of: dict[object, str] = {}
            for manifest in newest_first:
                last_of.setdefault(period_of(manifest.created_at.astimezone(UTC)), manifest.id)
            kept |= set(list(last_of.values())[:number])
        return kept


def prune(archive: Archive, retention: Retention) -> list[str]:
    """Delete the backups that need not be kept, and the files that no backup names. Return the ids of the backups.

    A backup that is being made meanwhile loses nothing: it continues the newest one, its own files belong to no backup
    that is deleted, and those that no backup names yet are new.

    Raises:
        BackupDamaged: a manifest is damaged. Nothing was deleted, because it does not tell which files are needed.
    """
    manifests = [archive.manifest(each) for each in archive.ids()]
    kept = retention.kept(manifests)
    deleted = [manifest for manifest in manifests if manifest.id not in kept]
    for manifest in deleted:
        archive.target.delete(f"manifests/{manifest.id}.json")
    of_deleted = {part.name for manifest in deleted for part in manifest.parts}
    incomplete = archive.incomplete()
    named = [manifest for manifest in manifests if manifest.id in kept] + ([incomplete] if incomplete else [])
    for name, file in archive.unnamed_files(named).items():
        if name in of_deleted or datetime.now(UTC) - file.modified > REMNANT_AGE:
            archive.target.delete(name)
    return [manifest.id for manifest in deleted]
