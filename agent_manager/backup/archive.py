"""A backup's files, in a directory or a bucket: written, listed, and read with every byte checked.

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
segments again, except for those of which events were erased since: they are written anew. Files appear under their
names only when they are complete. A name contains the beginning of the content's SHA-256, so that no backup replaces a
file of another one by other content. A manifest holds its own SHA-256; so nothing that a manifest names can be damaged
without being noticed.

Receipts of erasures belong to no backup and are never deleted: whichever backup is restored, what was erased after it
was made is erased again.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, takewhile
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from typing import Annotated, Any, Literal, NamedTuple, Self
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eventstore.errors import EventStoreError, InputError, NotFound, printable
from eventstore.ids import is_canonical_uuid

FORMAT = 1
_GZIP = 16 + zlib.MAX_WBITS
_CHUNK_BYTES = 1024 * 1024
_FOLDERS = _LOG, _IDENTITY, _FILES, _AUDIT, _MANIFESTS = "log", "identity", "files", "audit", "manifests"
_ERASURES = "erasures"
_INCOMPLETE, _DRILL = f"{_LOG}/incomplete.json", "drill.json"

EVENT_COLUMNS = (
    "position", "timestamp", "version", "schema_version", "conversation_id", "id", "tenant_id", "event_type", "actor",
    "content", "metadata", "salt", "digest",
)  # fmt: skip
TABLES = {
    "identity_tenants": ("id", "name", "created_at", "suspended_at"),
    "identity_users": ("tenant_id", "id", "kind", "name", "created_at", "disabled_at"),
    "identity_keys": (
        "id", "tenant_id", "user_id", "name", "hash", "scopes", "created_at", "expires_at", "revoked_at",
        "last_used_at",
    ),
    "identity_erasures": ("tenant_id", "salt", "hash", "erased_at"),
    "retention_rules": (
        "tenant_id", "id", "age", "since", "state", "user_id", "metadata", "reason", "added_by", "added_at",
        "applied_at", "outcome",
    ),
    "legal_holds": ("tenant_id", "id", "conversation_id", "user_id", "reason", "placed_by", "placed_at"),
    "blobs": ("tenant_id", "conversation_id", "sha256", "size", "created_at"),
    "blob_chunks": ("tenant_id", "sha256", "number", "content"),
}  # fmt: skip
"""The tables beside the log, with their columns; in an order in which they can be filled."""
BackedUpTable = Literal[
    "identity_tenants", "identity_users", "identity_keys", "identity_erasures", "retention_rules", "legal_holds",
    "blobs", "blob_chunks",
]  # fmt: skip
SealedTable = Literal["audit_tiles", "audit_checkpoints", "audit_cosignatures"]
SEALED_TABLES: dict[SealedTable, tuple[str, ...]] = {
    "audit_tiles": ("level", "index", "last_position", "hash", "content"),
    "audit_checkpoints": ("size", "last_position", "sealed_at", "note", "bundle"),
    "audit_cosignatures": ("size", "line"),
}
"""The tables of the sealed log, whose rows never change."""
FOLDERS = {table: _FILES if table.startswith("blob") else _IDENTITY for table in TABLES}
"""The folder of each of these tables. Those in ``files`` have row-level security for the owner, too."""


class BackupDamaged(InputError):
    """A file of a backup is missing, or is not as it was written.

    Attributes:
        name: of the file.
    """

    def __init__(self, name: str, reason: str) -> None:
        remedy = "delete it" if name.startswith(_MANIFESTS) else "make a complete one (eventstore backup create --full)"
        super().__init__(f"{printable(name)}: {reason}: use another backup (eventstore backup list), and {remedy}")
        self.name = name
        self.reason = reason


class TargetFailed(EventStoreError):
    """The directory or bucket of the backups cannot be read or written."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Model):
    """A compressed file of a backup.

    Attributes:
        columns: of its rows, in their order.
        rows: their number.
        size: bytes of the file.
        sha256: of the file.
    """

    name: Annotated[str, Field(pattern=rf"^(?:{_LOG}|{_IDENTITY}|{_FILES}|{_AUDIT})/[\w-]+\.copy\.gz$")]
    columns: tuple[str, ...]
    rows: int
    size: int
    sha256: str


class Segment(Part):
    """A part of the log.

    Attributes:
        first, last: the positions of its first and its last event.
        last_digest: the digest of the last event.
        last_time: when it was appended.
        text_bytes: size of the uncompressed text.
        erased: how many of its events are erased.
    """

    first: int
    last: int
    last_digest: str
    last_time: datetime
    text_bytes: int
    erased: int


class SealedPart(Part):
    """A part of a table of the sealed log.

    Attributes:
        after, last: it has the rows that follow a number, up to another: the position of their last event, or, of
            cosignatures, the size of their checkpoint.
    """

    table: SealedTable
    after: int
    last: int


class Manifest(_Model):
    """A backup, from which the log can be restored as it was then.

    Attributes:
        created_at: the time at which it began.
        complete_to: everything that was acknowledged before this time is in it. Earlier than ``created_at`` if an
            append in flight held the log back (``docs/concepts/order.md``).
        position: the position up to which the log was final then.
        server_version: of the server, such as ``18.1``.
        segments: of the log, in order.
        tables: by the name of the table; none while the backup is incomplete.
        sealed: the sealed log, as far as the backup has its events; none while the backup is incomplete.
    """

    format: int
    created_at: datetime
    complete_to: datetime
    position: int
    server_version: str
    segments: tuple[Segment, ...]
    tables: dict[BackedUpTable, Part]
    sealed: tuple[SealedPart, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check that the segments follow each other, and that all files have the columns of the format."""
        position = 0
        for segment in self.segments:
            if not position < segment.first <= segment.last or segment.columns != EVENT_COLUMNS:
                raise ValueError(segment.name)
            position = segment.last
        if any(part.columns != TABLES[table] for table, part in self.tables.items()) or any(
            part.columns != SEALED_TABLES[part.table] for part in self.sealed
        ):
            raise ValueError("columns")
        return self

    @property
    def id(self) -> str:
        """The name of the backup: its time in UTC, to the microsecond."""
        return self.created_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S%fZ")

    @property
    def age_seconds(self) -> float:
        """The time whose events would be lost if it were restored now."""
        return (datetime.now(UTC) - self.complete_to).total_seconds()

    @property
    def events(self) -> int:
        """The number of its events."""
        return sum(segment.rows for segment in self.segments)

    @property
    def size(self) -> int:
        """Bytes of its files, with those that earlier backups share."""
        return sum(part.size for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All its files."""
        return (*self.segments, *self.tables.values(), *self.sealed)


class ErasureRecord(_Model):
    """The receipt of an erasure, as far as it is needed to erase the same events of an older backup.

    Attributes:
        id: of the receipt's event.
        is_whole: whether a whole conversation was erased.
        versions, until, erases_members, reason: see :class:`eventstore.ConversationErased`.
        erased_at: the time of the receipt.
    """

    id: UUID
    tenant_id: str
    conversation_id: UUID
    is_whole: bool
    versions: tuple[tuple[int, int], ...]
    until: datetime
    erases_members: bool
    reason: str
    erased_at: datetime

    @property
    def multirange(self) -> str:
        """The versions as PostgreSQL writes them."""
        return "{" + ",".join(f"[{first},{last}]" for first, last in self.versions) + "}"


class StoredFile(NamedTuple):
    """The size of a file in bytes, and when it was written."""

    size: int
    modified: datetime


class Directory:
    """A target in the file system: files by name, in folders. Only the user who writes the backups can read them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def files(self, folder: str) -> dict[str, StoredFile]:
        """Return the files in a folder by name, also the temporary ones of interrupted writes."""
        found = {}
        with self._errors(), suppress(FileNotFoundError), os.scandir(self.path / folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    status = entry.stat()
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    found[f"{folder}/{entry.name}"] = StoredFile(status.st_size, modified)
        return found

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file. Raises FileNotFoundError."""
        with self._errors(), open(self.path / name, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        """Write a file, durably; it appears under its name when it is complete, and replaces one of that name."""
        with self._errors():
            self._write(self.path / name, chunks)

    def _write(self, path: Path, chunks: Iterator[bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.parent / f".{path.name}.{uuid4().hex}"
        try:
            with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def delete(self, name: str) -> None:
        """Delete a file, unless it does not exist."""
        with self._errors(), suppress(FileNotFoundError):
            (self.path / name).unlink()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate errors except for FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise TargetFailed(
                f"{printable(str(self))}: {printable(str(error))}: check its permissions and its disk, or name another "
                "directory or bucket"
            ) from error


class Bucket:
    """A target in an object store, by obstore: ``s3://bucket/prefix``, ``gs://…``, ``az://…``.

    Credentials, region and endpoint come from the environment, as for the object store's own tools.
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore.exceptions
            import obstore.store
        except ImportError:
            raise InputError(f"{printable(url)}: needs obstore: pip install 'flowagents-eventstore[bucket]'") from None
        self._url = url
        self._obstore: Any = obstore
        try:
            self._store: Any = obstore.store.from_url(url)
        except Exception as error:  # obstore's own classes, one for each object store
            raise InputError(
                f"{printable(url)}: {printable(str(error))}: give a URL such as s3://bucket/name"
            ) from None

    def __str__(self) -> str:
        return self._url

    def files(self, folder: str) -> dict[str, StoredFile]:
        """See :class:`Directory`."""
        with self._errors():
            found = self._obstore.list_with_delimiter(self._store, prefix=folder)["objects"]
        return {
            f"{folder}/{entry['path'].rpartition('/')[2]}": StoredFile(entry["size"], entry["last_modified"])
            for entry in found
        }

    def read(self, name: str) -> Iterator[bytes]:
        """See :class:`Directory`."""
        with self._errors():
            for chunk in self._obstore.get(self._store, name).stream():
                yield bytes(chunk)

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        """See :class:`Directory`."""
        with self._errors(FileNotFoundError):
            self._obstore.put(self._store, name, chunks)

    def delete(self, name: str) -> None:
        """See :class:`Directory`."""
        with self._errors(), suppress(FileNotFoundError):
            self._obstore.delete(self._store, name)

    @contextmanager
    def _errors(self, *more: type[Exception]) -> Iterator[None]:
        """Translate obstore's errors, and more. A missing file, and a missing bucket, raise FileNotFoundError."""
        try:
            yield
        except (self._obstore.exceptions.BaseError, *more) as error:
            reason = str(error).partition("\n")[0]
            raise TargetFailed(
                f"{printable(self._url)}: {printable(reason)}: check the credentials, the region and the endpoint in "
                "the environment, and that the bucket exists"
            ) from error


def open_target(where: str) -> Directory | Bucket:
    """Return the target that a path, or the URL of a bucket, names."""
    return Bucket(where) if "://" in where else Directory(Path(where).expanduser().absolute())


class Archive:
    """The backups in a target."""

    def __init__(self, target: Directory | Bucket) -> None:
        self.target = target

    def ids(self) -> list[str]:
        """Return the ids of the backups, oldest first."""
        names = sorted(self.target.files(_MANIFESTS))
        return [name[len(_MANIFESTS) + 1 : -len(".json")] for name in names if name.endswith(".json")]

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
        return self._read_manifest(f"{_MANIFESTS}/{backup_id}.json")

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
        files = self.target.files(_LOG)
        # Of two that reach as far, the newer: segments of which events were erased are written anew.
        longest = max(reversed(logs), key=lambda segments: segments[-1].last if segments else 0, default=())

        def is_whole(segment: Segment) -> bool:
            return segment.name in files and files[segment.name].size == segment.size

        return tuple(takewhile(is_whole, longest))

    def sealed_parts(self) -> tuple[SealedPart, ...]:
        """Return the parts of the sealed log in the newest backup; none if a file of theirs is missing."""
        newest = self.newest()
        parts = newest.sealed if newest else ()
        files = self.target.files(_AUDIT)
        return parts if all(part.name in files and files[part.name].size == part.size for part in parts) else ()

    def write_manifest(self, manifest: Manifest, *, is_complete: bool) -> None:
        """Write the manifest of a backup; a complete one ends the incomplete one."""
        name = f"{_MANIFESTS}/{manifest.id}.json" if is_complete else _INCOMPLETE
        self.target.write(name, iter((_document(manifest.model_dump_json(indent=1)),)))
        if is_complete:
            self.target.delete(_INCOMPLETE)

    def delete_manifest(self, manifest: Manifest) -> None:
        """Delete the manifest of a backup: the backup no longer exists, whatever becomes of its files."""
        self.target.delete(f"{_MANIFESTS}/{manifest.id}.json")

    def unnamed_files(self, manifests: Iterable[Manifest]) -> dict[str, StoredFile]:
        """Return the files that no manifest among these names: remnants, or of a backup that is being made."""
        named = {part.name for manifest in manifests for part in manifest.parts} | {_INCOMPLETE}
        named |= {f"{_MANIFESTS}/{each}.json" for each in self.ids()}
        return {name: file for name, file in self.files().items() if name not in named}

    def files(self) -> dict[str, StoredFile]:
        """Return the files in all folders by name."""
        return dict(chain(*(self.target.files(folder).items() for folder in _FOLDERS)))

    def write_erasures(self, records: Iterable[ErasureRecord]) -> int:
        """Write the receipts that the target does not have; return their number."""
        known, written = self.target.files(_ERASURES), 0
        for record in records:
            name = f"{_ERASURES}/{record.id}.json"
            if name not in known:
                self.target.write(name, iter((_document(record.model_dump_json(indent=1), "erasure"),)))
                written += 1
        return written

    def erasure_ids(self) -> list[UUID]:
        """Return the ids of the receipts of erasures."""
        found = (PurePath(name) for name in self.target.files(_ERASURES))
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
            name = f"{_ERASURES}/{each}.json"
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
                _check_format(name, json.loads(text)["format"])
                manifest = Manifest.model_validate_json(text)
        except FileNotFoundError:
            raise BackupDamaged(name, "is missing") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        if manifest is None or name not in (_INCOMPLETE, f"{_MANIFESTS}/{manifest.id}.json"):
            raise BackupDamaged(name, "is not the manifest that was written")
        return manifest

    def check_part(self, part: Part) -> None:
        """Read a file without decompressing it.

        Raises:
            BackupDamaged: it is missing, or not as it was written.
        """
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in self.target.read(part.name):
                digest.update(chunk)
                size += len(chunk)
        except FileNotFoundError:
            raise BackupDamaged(part.name, "is missing") from None
        _compare(part, (size, digest.hexdigest()))

    def read_part(self, part: Part) -> Iterator[bytes]:
        """Yield the uncompressed text of a file in chunks; a consumer that reads to the end knows that all is intact.

        Raises:
            BackupDamaged: it is missing, or not as it was written.
        """
        digest, size, rows = hashlib.sha256(), 0, 0
        decompressor = zlib.decompressobj(_GZIP)
        try:
            for chunk in self.target.read(part.name):
                digest.update(chunk)
                size += len(chunk)
                while chunk and not decompressor.eof:
                    text = decompressor.decompress(chunk, _CHUNK_BYTES)
                    chunk = decompressor.unconsumed_tail
                    rows += text.count(b"\n")
                    yield text
            text = decompressor.flush()
            rows += text.count(b"\n")
            yield text
        except FileNotFoundError:
            raise BackupDamaged(part.name, "is missing") from None
        except zlib.error:
            raise BackupDamaged(part.name, "is damaged") from None
        _compare(part, (size, digest.hexdigest()))
        if rows != part.rows or not decompressor.eof:
            raise BackupDamaged(part.name, f"has {rows} rows, not {part.rows}")


def _compare(part: Part, found: tuple[int, str]) -> None:
    if found != (part.size, part.sha256):
        raise BackupDamaged(part.name, "is damaged: it differs from its SHA-256 in the manifest")


def _document(text: str, kind: str = "manifest") -> bytes:
    """Return the content of a manifest's or a receipt's file, to the byte."""
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), kind: text}, indent=1).encode()


def _check_format(name: str, found: object) -> None:
    if found != FORMAT:
        raise InputError(f"{name}: is in format {found}, this version reads {FORMAT}: use the version that wrote it")


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

    def save(self, target: Directory | Bucket, stem: str) -> dict[str, Any]:
        """Write the file, and return the members of its :class:`Part` except for the columns.

        Args:
            stem: the beginning of its name.
        """
        self._add(self._compressor.flush())
        digest, size = self._digest.hexdigest(), self._file.tell()
        name = f"{stem}-{digest[:16]}.copy.gz"
        self._file.seek(0)
        target.write(name, iter(lambda: self._file.read(_CHUNK_BYTES), b""))
        return {"name": name, "rows": self.rows, "size": size, "sha256": digest}

    def _add(self, compressed: bytes) -> None:
        self._digest.update(compressed)
        self._file.write(compressed)
