"""Backups of sources: compressed JSON Lines, written atomically, with a SHA-256 beside each.

The first line names version, tenant and source and holds the agents, each further line is a conversation, and the last
one holds their numbers. A folder may hold backups of several tenants and sources: :func:`choose_backup` takes only
those of the given one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter

from agent_manager.a2a import Json
from agent_manager.importers.source import Source, SourceConversation
from agent_manager.private_files import make_private_folder, replacing, write_private
from eventstore.concurrency import gather_or_raise
from eventstore.errors import InputError
from eventstore.urls import show_url

SUFFIX = ".jsonl.gz"
_NAME = re.compile(r"backup-\d{8}T\d{12}Z\.jsonl\.gz")
_VERSION = 2
_VERSION_WITHOUT_TENANT = 1
_CONCURRENT_READS = 16
_CONVERSATION = TypeAdapter(SourceConversation)

T = TypeVar("T")


class SourceBackupDamaged(InputError):
    """A backup does not exist, is not a backup, or is not as it was written."""


class BackupMismatch(InputError):
    """A backup belongs to another tenant or source, or does not name its tenant."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A complete backup.

    Attributes:
        tenant: the tenant that it is imported into.
        source: the name of its source: the URL of an application, ``google-adk in`` a database, or the class of a
            manager.
        time_zone: the zone of times in it that have no offset; None means UTC.
        pending: the number of messages that awaited an answer.
    """

    path: Path
    tenant: str
    source: str
    taken_at: datetime
    time_zone: str | None
    sha256: str
    agents: list[Json]
    pending: int
    conversations: int
    messages: int
    tasks: int

    def read(self) -> Iterator[SourceConversation]:
        """Yield the conversations."""
        with gzip.open(self.path, "rt", encoding="utf-8") as file:
            next(file)
            for line in file:
                value = json.loads(line)
                if "end" not in value:
                    yield _CONVERSATION.validate_python(value)

    async def read_with(
        self, find: Callable[[SourceConversation], Coroutine[Any, Any, T]]
    ) -> AsyncIterator[tuple[SourceConversation, T]]:
        """Yield the conversations, each with what was found for it. Several are looked up concurrently."""
        conversations = self.read()
        while batch := list(islice(conversations, _CONCURRENT_READS)):
            for pair in zip(batch, await gather_or_raise(map(find, batch)), strict=True):
                yield pair


_BACKUP = TypeAdapter(Backup)


class BackupSource(Source):
    """A backup as a source, to import it into another tenant."""

    def __init__(self, backup: Backup) -> None:
        self.name = backup.source
        self._backup = backup

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        for conversation in self._backup.read():
            yield conversation

    async def agents(self) -> list[Json]:
        return self._backup.agents

    async def pending(self) -> int:
        return self._backup.pending


async def write_backup(source: Source, path: Path, tenant: str, time_zone: str | None = None) -> Backup:
    """Read a source to its end and write what it gives.

    Raises:
        SourceUnreadable: the source cannot be read; nothing is left of the backup.
        OSError: it cannot be written.
    """
    make_private_folder(path.parent)
    with replacing(path) as file:
        await _write(source, file, tenant, time_zone)
        file.seek(0)
        # The hash is written first: a hash without a backup is harmless, a backup without its hash counts as damaged.
        write_private(_hash_path(path), f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return open_backup(path)


async def _write(source: Source, file: IO[bytes], tenant: str, time_zone: str | None) -> None:
    counts = Counter(conversations=0, messages=0, tasks=0)
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as compressed:

        def write(value: Json) -> None:
            text = json.dumps(value, ensure_ascii=True, default=datetime.isoformat)
            compressed.write(text.encode() + b"\n")

        write({
            "eventstore-backup": _VERSION,
            "tenant": tenant,
            "source": source.name,
            "time_zone": time_zone,
            "taken_at": datetime.now(UTC),
            "agents": await source.agents(),
            "pending": await source.pending(),
        })  # fmt: skip
        async for conversation in source.conversations():
            write(asdict(conversation))
            counts.update(conversations=1, **conversation.counts())
        write({"end": counts})


def open_backup(path: Path) -> Backup:
    """Return a backup after reading it to its end and checking its hash.

    Raises:
        SourceBackupDamaged: it is not as it was written.
        BackupMismatch: it does not name its tenant.
    """
    try:
        hashes = _hash_path(path).read_text(encoding="utf-8").split()
        with path.open("rb") as packed:
            sha256 = hashlib.file_digest(packed, "sha256").hexdigest()
        if hashes[:1] != [sha256]:
            raise SourceBackupDamaged(
                f"{path}: its SHA-256 is not the one in {_hash_path(path).name}: take another backup"
            )
        with gzip.open(path, "rt", encoding="utf-8") as file:
            first = last = json.loads(next(file))
            for line in file:
                last = json.loads(line)
        if first["eventstore-backup"] == _VERSION_WITHOUT_TENANT:
            raise BackupMismatch(f"{path}: does not name its tenant (version 1): import from the source again")
        if first["eventstore-backup"] != _VERSION:
            raise SourceBackupDamaged(f"{path}: is a backup of another version: use the version that wrote it")
        return _BACKUP.validate_python(first | last["end"] | {"path": path, "sha256": sha256})
    except OSError as error:
        raise SourceBackupDamaged(
            f"{path}: {error.strerror or error}: give a backup with its .sha256 beside it"
        ) from None
    except (ValueError, KeyError, TypeError, EOFError, StopIteration):
        raise SourceBackupDamaged(f"{path}: is not a backup of this program: give one that it wrote") from None


def check_tenant(backup: Backup, tenant: str) -> Backup:
    """Return a backup. Raise BackupMismatch if it is not the tenant's."""
    if backup.tenant != tenant:
        raise BackupMismatch(
            f"{backup.path}: is a backup of tenant {backup.tenant!r} from {backup.source}, not of {tenant!r}: "
            f"give --tenant {backup.tenant}, or another backup"
        )
    return backup


def choose_backup(folder: Path, tenant: str, url: str | None = None, *, may_have_moved: bool = False) -> Backup:
    """Return the newest backup of a tenant in a folder.

    Args:
        url: the application's; needed if the tenant has backups of several sources.
        may_have_moved: whether a backup of an application at another URL counts, too.

    Raises:
        SourceBackupDamaged: there is no backup at all, or the newest one is damaged.
        BackupMismatch: there is none of that tenant and application, or they are of several sources.
    """
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))
    if not paths:
        raise SourceBackupDamaged(
            f"{folder}: there is no backup: give the folder that the import wrote to with --backups"
        )
    headers = {path: _read_header(path) for path in paths}
    sources = {path: header["source"] for path, header in headers.items() if header.get("tenant") == tenant}
    if url is not None:
        at_url = {path: source for path, source in sources.items() if is_same_source(source, url)}
        # A source that was not read over HTTP, such as a manager in its own process, may be the application at any URL.
        without_url = {path: source for path, source in sources.items() if "://" not in source}
        sources = at_url or (sources if may_have_moved else without_url)
    found = ", ".join(sorted({_origin(header) for header in headers.values()}))
    wanted = f"tenant {tenant!r}" + ("" if url is None else f" from {show_url(url)}")
    if not sources:
        raise BackupMismatch(
            f"{folder}: there is no backup of {wanted}, only of {found}: give --tenant, or --backup FILE"
        )
    if len({_comparable(source) for source in sources.values()}) > 1:
        raise BackupMismatch(f"{folder}: backups of {wanted} are of several sources ({found}): give --backup FILE")
    newest = max(sources)
    for path, header in headers.items():
        if path > newest and header.get("is_damaged"):
            raise SourceBackupDamaged(
                f"{path}: is damaged, and newer than {newest.name}: give the one to use with --backup"
            )
    return open_backup(newest)


def _read_header(path: Path) -> Json:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            header = json.loads(next(file))
        return {"tenant": header.get("tenant"), "source": str(header["source"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, StopIteration):
        return {"source": f"a damaged file ({path.name})", "is_damaged": True}


def _origin(header: Json) -> str:
    tenant = header.get("tenant")
    return f"{'an unnamed tenant' if tenant is None else f'tenant {tenant!r}'} from {header['source']}"


def is_same_source(source: str, url: str) -> bool:
    """Return whether two names of sources mean the same source."""
    return _comparable(source) == _comparable(url)


def _comparable(name: str) -> str:
    """Return the name of a source in one form: without a password, and with one name for this machine."""
    shown = show_url(name) if "://" in name else name
    return re.sub(r"://(localhost|\[::1\])(?=[:/]|$)", "://127.0.0.1", shown.rstrip("/").lower())


def new_backup_path(folder: Path) -> Path:
    """Return the path of the next backup. Later backups have later names."""
    return folder / f"backup-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z{SUFFIX}"


def remove_backup(backup: Backup) -> None:
    """Remove a backup from which nothing was imported, so that no rollback chooses it."""
    backup.path.unlink(missing_ok=True)
    _hash_path(backup.path).unlink(missing_ok=True)


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
