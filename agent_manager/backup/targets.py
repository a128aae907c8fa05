"""The places for backups: a directory, or a bucket in an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from agent_manager.private_files import replacing
from eventstore.errors import EventStoreError, InputError, printable

CHUNK_BYTES = 1024 * 1024


class TargetFailed(EventStoreError):
    """The directory or bucket of the backups cannot be read or written."""


class StoredFile(NamedTuple):
    """The size of a file in bytes, and when it was written."""

    size: int
    modified: datetime


class Folder:
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
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        """Write a file, durably; it appears under its name when it is complete, and replaces one of that name."""
        path = self.path / name
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replacing(path) as file:
                for chunk in chunks:
                    file.write(chunk)

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
        """See :class:`Folder`."""
        with self._errors():
            found = self._obstore.list_with_delimiter(self._store, prefix=folder)["objects"]
        return {
            f"{folder}/{entry['path'].rpartition('/')[2]}": StoredFile(entry["size"], entry["last_modified"])
            for entry in found
        }

    def read(self, name: str) -> Iterator[bytes]:
        """See :class:`Folder`."""
        with self._errors():
            for chunk in self._obstore.get(self._store, name).stream():
                yield bytes(chunk)

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        """See :class:`Folder`."""
        with self._errors(FileNotFoundError):
            self._obstore.put(self._store, name, chunks)

    def delete(self, name: str) -> None:
        """See :class:`Folder`."""
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


def open_target(where: str) -> Folder | Bucket:
    """Return the target that a path, or the URL of a bucket, names."""
    return Bucket(where) if "://" in where else Folder(Path(where).expanduser().absolute())
