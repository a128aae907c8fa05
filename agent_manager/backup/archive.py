"""A backup's files, in a directory or a bucket: written, listed, and read with every byte checked.

::

    log/<first>-<last>.copy.gz         a segment: events in the order of the log
    identity/<id>-<table>.copy.gz      tenants, users and keys at the time of one backup
    manifests/<id>.json                one backup: the segments and tables that it consists of, each with its SHA-256
    incomplete.json                    the segments of a backup that was interrupted, which the next one continues

Segments and tables are in the text format of PostgreSQL's COPY, compressed by gzip, so that ``zcat`` and ``psql`` alone
can read them. The log is append-only: a backup writes the events since the last one, and its manifest names the earlier
segments again. Files appear under their names only when they are complete. A manifest holds its own SHA-256; so nothing
that a manifest names can be damaged without being noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from eventstore.errors import InputError, NotFound, printable

FORMAT = 1
_GZIP = 16 + zlib.MAX_WBITS
_CHUNK_BYTES = 1024 * 1024
_LOG, _MANIFESTS, _INCOMPLETE = "log", "manifests", "incomplete.json"


class BackupDamaged(InputError):
    """A file of a backup is missing, or is not as it was written.

    Attributes:
        name: of the file.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{printable(name)}: {reason}: restore an older backup (eventstore backup list), or write the file anew "
            "from the live log (eventstore backup create --full)"
        )
        self.name = name
        self.reason = reason


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

    name: str
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
    """

    first: int
    last: int
    last_digest: str
    last_time: datetime
    text_bytes: int


class Manifest(_Model):
    """A backup, from which the log can be restored as it was then.

    Attributes:
        created_at: the time at which it began; everything that was committed before is in it.
        position: the position up to which the log was final then.
        server_version: of the server, such as ``18.1``.
        segments: of the log, in order.
        tables: by the name of the table; none while the backup is incomplete.
    """

    format: int
    created_at: datetime
    position: int
    server_version: str
    segments: tuple[Segment, ...]
    tables: dict[str, Part]

    @property
    def id(self) -> str:
        """The name of the backup: its time in UTC, to the microsecond."""
        return self.created_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S%fZ")

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
        return (*self.segments, *self.tables.values())


class Directory:
    """A target in the file system: files by name, in folders. Only the user who writes the backups can read them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of the files in a folder, by name."""
        try:
            entries = list(os.scandir(self.path / folder))
        except FileNotFoundError:
            return {}
        return {f"{folder}/{entry.name}": entry.stat().st_size for entry in entries if not entry.name.startswith(".")}

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file. Raises FileNotFoundError."""
        with open(self.path / name, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        """Write a file, durably; it appears under its name when it is complete, and replaces one of that name."""
        path = self.path / name
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
        with suppress(FileNotFoundError):
            (self.path / name).unlink()


class Bucket:
    """A target in an object store, by obstore: ``s3://bucket/prefix``, ``gs://…``, ``az://…``.

    Credentials, region and endpoint come from the environment, as for the object store's own tools.
    """

    def __init__(self, url: str) -> None:
        try:
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

    def sizes(self, folder: str) -> dict[str, int]:
        """See :class:`Directory`."""
        found = self._obstore.list_with_delimiter(self._store, prefix=folder)["objects"]
        return {f"{folder}/{entry['path'].rpartition('/')[2]}": entry["size"] for entry in found}

    def read(self, name: str) -> Iterator[bytes]:
        """See :class:`Directory`."""
        for chunk in self._obstore.get(self._store, name).stream():
            yield bytes(chunk)

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        """See :class:`Directory`."""
        self._obstore.put(self._store, name, chunks)

    def delete(self, name: str) -> None:
        """See :class:`Directory`."""
        with suppress(FileNotFoundError):
            self._obstore.delete(self._store, name)


def open_target(where: str) -> Directory | Bucket:
    """Return the target that a path, or the URL of a bucket, names."""
    return Bucket(where) if "://" in where else Directory(Path(where).expanduser().absolute())


class Archive:
    """The backups in a target."""

    def __init__(self, target: Directory | Bucket) -> None:
        self.target = target

    def ids(self) -> list[str]:
        """Return the ids of the backups, oldest first."""
        names = sorted(self.target.sizes(_MANIFESTS))
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
        sizes = self.target.sizes(_LOG)
        longest = max(logs, key=lambda segments: segments[-1].last if segments else 0, default=())
        return tuple(takewhile(lambda segment: sizes.get(segment.name) == segment.size, longest))

    def write_manifest(self, manifest: Manifest, *, is_complete: bool) -> None:
        """Write the manifest of a backup; a complete one ends the incomplete one."""
        text = manifest.model_dump_json(indent=1)
        document = json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "manifest": text}, indent=1)
        name = f"{_MANIFESTS}/{manifest.id}.json" if is_complete else _INCOMPLETE
        self.target.write(name, iter((document.encode(),)))
        if is_complete:
            self.target.delete(_INCOMPLETE)

    def delete_manifest(self, manifest: Manifest) -> None:
        """Delete the manifest of a backup: the backup no longer exists, whatever becomes of its files."""
        self.target.delete(f"{_MANIFESTS}/{manifest.id}.json")

    def _read_manifest(self, name: str) -> Manifest:
        try:
            document = json.loads(b"".join(self.target.read(name)))
            text = document["manifest"]
            is_intact = hashlib.sha256(text.encode()).hexdigest() == document["sha256"]
            manifest = Manifest.model_validate_json(text) if is_intact else None
        except FileNotFoundError:
            raise BackupDamaged(name, "is missing") from None
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
            manifest = None
        if manifest is None:
            raise BackupDamaged(name, "is not the manifest that was written")
        if manifest.format != FORMAT:
            raise InputError(
                f"{name}: is in format {manifest.format}, this version reads {FORMAT}: use the version that wrote it"
            )
        return manifest

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
        if (size, rows, digest.hexdigest()) != (part.size, part.rows, part.sha256) or not decompressor.eof:
            raise BackupDamaged(part.name, "is damaged: it differs from its SHA-256 in the manifest")


class PartWriter:
    """The text of a file of a backup, compressed into a temporary file until its name is known."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._compressor = zlib.compressobj(wbits=_GZIP)
        self.text_bytes = 0
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, text: bytes) -> None:
        """Add whole rows, each with a line feed at its end."""
        self._file.write(self._compressor.compress(text))
        self.text_bytes += len(text)
        self.rows += text.count(b"\n")

    def save(self, target: Directory | Bucket, name: str) -> dict[str, Any]:
        """Write the file, and return the members of its :class:`Part` except for the columns."""
        self._file.write(self._compressor.flush())
        size = self._file.tell()
        self._file.seek(0)
        digest = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            while chunk := self._file.read(_CHUNK_BYTES):
                digest.update(chunk)
                yield chunk

        target.write(name, chunks())
        return {"name": name, "rows": self.rows, "size": size, "sha256": digest.hexdigest()}
