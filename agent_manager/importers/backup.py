"""Backups: compressed JSON Lines, written atomically, with a SHA-256.

The first line names version, tenant and source and holds the agents, each further one a conversation, the last how many
there are. A folder may hold backups of several tenants and sources: :func:`choose_backup` takes only one's own.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedRandom, BufferedWriter
from pathlib import Path
from typing import IO

from agent_manager.importers.source import Json, Source, SourceConversation
from eventstore.errors import InputError
from eventstore.urls import show_url

# Files that hold conversations: readable by their owner only, written whole or not at all, and durable


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter. One that exists keeps its permissions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)


@contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """A file that takes the place of the one at a path when it is complete; nothing is left of it otherwise."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        unfinished.unlink()  # of a process that was killed, and had the same id
    try:
        with open(unfinished, "x+b", opener=_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def write_private(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as file:
        file.write(text.encode())


def append_private(path: Path) -> BufferedWriter:
    """Open a file to append to it."""
    return open(path, "ab", opener=_private)


def _private(path: str, flags: int) -> int:
    """Open a file that only its owner can read, if it is new."""
    return os.open(path, flags, 0o600)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Backups: JSON Lines, compressed, written whole or not at all, with a SHA-256 beside them

_WITHOUT_TENANT = 1
FORMAT = 2
"""Since 2 a backup names its tenant."""
SUFFIX = ".jsonl.gz"
_NAME = re.compile(r"backup-\d{8}T\d{12}Z\.jsonl\.gz")


class BackupDamaged(InputError):
    """A backup does not exist, is not a backup, or is not as it was written."""


class BackupMismatch(InputError):
    """A backup belongs to another tenant or source, or does not name its tenant."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was found whole.

    Attributes:
        tenant: into whose conversations it was taken over, or is to be.
        source: the name of its source: the URL of an application, ``google-adk in`` a database, or the class of a
            manager.
        taken_at: in UTC.
        time_zone: of times in it that have no offset; None means UTC.
        sha256: of the file.
        agents: cards.
        pending: messages that were being answered.
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
        """Its conversations, one at a time."""
        with gzip.open(self.path, "rt", encoding="utf-8") as file:
            next(file)
            for line in file:
                plain = json.loads(line)
                if "end" not in plain:
                    yield SourceConversation.from_json(plain)


def backup_path(folder: Path) -> Path:
    """Return where the next backup goes: later ones have later names."""
    return folder / f"backup-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z{SUFFIX}"


def choose_backup(folder: Path, tenant: str, url: str | None = None, *, may_have_moved: bool = False) -> Backup:
    """Return the newest backup of a tenant in a folder.

    Args:
        url: of the application; it decides if the tenant has backups of several sources.
        may_have_moved: whether a backup of an application at another URL counts, too.

    Raises:
        BackupDamaged: there is none at all, or the newest one is damaged.
        BackupMismatch: none is of that tenant and application, or they are of several sources.
    """
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))
    if not paths:
        raise BackupDamaged(f"{folder}: there is no backup: give the folder that the import wrote into, by --backups")
    origins = {path: _origin(path) for path in paths}
    own = {path: one.source for path, one in origins.items() if one.tenant == tenant}
    if url is not None:
        at_url = {path: source for path, source in own.items() if is_same_source(source, url)}
        # A source that was not read over HTTP, such as a manager in its own process, may be the application at any URL.
        anywhere = {path: source for path, source in own.items() if "://" not in source}
        own = at_url or (own if may_have_moved else anywhere)
    there = ", ".join(sorted({str(origin) for origin in origins.values()}))
    wanted = f"tenant {tenant!r}" + ("" if url is None else f" from {show_url(url)}")
    if not own:
        raise BackupMismatch(
            f"{folder}: there is no backup of {wanted}, only of {there}: give --tenant, or --backup FILE"
        )
    if len({_comparable(source) for source in own.values()}) > 1:
        raise BackupMismatch(f"{folder}: backups of {wanted} are of several sources ({there}): give --backup FILE")
    newest = max(own)
    for path, origin in origins.items():
        if path > newest and origin.is_damaged:
            raise BackupDamaged(
                f"{path}: is damaged, and newer than {newest.name}: give the one that goes back by --backup"
            )
    return open_backup(newest)


def check_tenant(backup: Backup, tenant: str) -> Backup:
    """Return a backup of a tenant.

    Raises:
        BackupMismatch: it is of another.
    """
    if backup.tenant != tenant:
        raise BackupMismatch(
            f"{backup.path}: is a backup of tenant {backup.tenant!r} from {backup.source}, not of {tenant!r}: "
            f"give --tenant {backup.tenant}, or another backup"
        )
    return backup


async def write_backup(source: Source, path: Path, tenant: str, time_zone: str | None = None) -> Backup:
    """Read a source to its end and write what it gave.

    Raises:
        SourceUnreadable: the source cannot be read; nothing is left of the backup.
        OSError: it cannot be written.
    """
    make_private_folder(path.parent)
    with replacing(path) as file:
        await _write(source, file, tenant, time_zone)
        file.seek(0)
        # A sum without a file is harmless; a file without its sum would be damaged.
        write_private(_sum_of(path), f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return open_backup(path)


def open_backup(path: Path) -> Backup:
    """Return a backup, read to its end and compared with its sum.

    Raises:
        BackupDamaged: it is not as it was written.
        BackupMismatch: it does not name its tenant.
    """
    try:
        sums = _sum_of(path).read_text(encoding="utf-8").split()
        found = _sha256(path)
        if not sums or found != sums[0]:
            raise BackupDamaged(f"{path}: its SHA-256 is not the one in {_sum_of(path).name}: take another backup")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            first = json.loads(next(file))
            last = first
            for line in file:
                last = json.loads(line)
        if first["eventstore-backup"] == _WITHOUT_TENANT:
            raise BackupMismatch(f"{path}: does not name its tenant (version 1): import from the source again")
        if first["eventstore-backup"] != FORMAT:
            raise BackupDamaged(f"{path}: is a backup of another version: use the version that wrote it")
        return Backup(
            path=path,
            tenant=first["tenant"],
            source=first["source"],
            taken_at=datetime.fromisoformat(first["taken_at"]),
            time_zone=first["time_zone"],
            sha256=found,
            agents=first["agents"],
            pending=first["pending"],
            **last["end"],
        )
    except OSError as error:
        raise BackupDamaged(f"{path}: {error.strerror or error}: give a backup with its .sha256 beside it") from None
    except (ValueError, KeyError, TypeError, EOFError, StopIteration):
        raise BackupDamaged(f"{path}: is not a backup of this program: give one that it wrote") from None


def remove_backup(backup: Backup) -> None:
    """Remove a backup of which nothing was taken over, so that no rollback chooses it."""
    backup.path.unlink(missing_ok=True)
    _sum_of(backup.path).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the first line of a backup says of its origin; version 1 names no tenant."""

    tenant: str | None
    source: str
    is_damaged: bool = False

    def __str__(self) -> str:
        tenant = "an unnamed tenant" if self.tenant is None else f"tenant {self.tenant!r}"
        return f"{tenant} from {self.source}"


def _origin(path: Path) -> _Origin:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            first = json.loads(next(file))
        return _Origin(first.get("tenant"), str(first["source"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, StopIteration):
        return _Origin(None, f"a damaged file ({path.name})", is_damaged=True)


def is_same_source(source: str, url: str) -> bool:
    """Return whether two names of sources mean one."""
    return _comparable(source) == _comparable(url)


def _comparable(url: str) -> str:
    """Return a URL in one form: this machine has several names."""
    shown = show_url(url) if "://" in url else url  # as a backup names its source: without a password
    return re.sub(r"://(localhost|\[::1\])(?=[:/]|$)", "://127.0.0.1", shown.rstrip("/").lower())


async def _write(source: Source, file: IO[bytes], tenant: str, time_zone: str | None) -> None:
    counts = {"conversations": 0, "messages": 0, "tasks": 0}
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:

        def write(value: Json) -> None:
            packed.write(json.dumps(value, ensure_ascii=True).encode() + b"\n")

        write({
            "eventstore-backup": FORMAT,
            "tenant": tenant,
            "source": source.name,
            "time_zone": time_zone,
            "taken_at": datetime.now(UTC).isoformat(),
            "agents": await source.agents(),
            "pending": await source.pending(),
        })  # fmt: skip
        async for conversation in source.conversations():
            write(conversation.to_json())
            counts["conversations"] += 1
            counts["messages"] += len(conversation.messages)
            counts["tasks"] += len(conversation.tasks)
        write({"end": counts})


class BackupSource:
    """A backup as a source."""

    def __init__(self, backup: Backup) -> None:
        self.name = backup.source
        self._backup = backup

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        for conversation in self._backup.read():
            yield conversation

    async def agents(self) -> list[Json]:
        """See :class:`Source`."""
        return self._backup.agents

    async def pending(self) -> int:
        """See :class:`Source`."""
        return self._backup.pending


def _sum_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
