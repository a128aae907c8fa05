"""Backups: JSON Lines, packed, written whole or not at all, with a SHA-256 beside them.

The first line says what it is of and holds the agents, each further one a conversation, the last how many there are.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from agent_manager.migrating.source import Source, SourceConversation
from agent_manager.migrating.wire import Json
from eventstore.errors import InputError

FORMAT = 1
SUFFIX = ".jsonl.gz"
_NAME = re.compile(r"backup-\d{8}T\d{12}Z\.jsonl\.gz")


class BackupDamaged(InputError):
    """A backup is not there, is no backup, or is not as it was written."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was found whole.

    Attributes:
        source: the name of what it is of.
        taken_at: in UTC.
        sha256: of the file.
        agents: cards.
        pending: messages that were being answered.
    """

    path: Path
    source: str
    taken_at: datetime
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
    """Where the next backup goes: later ones have later names."""
    return folder / f"backup-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z{SUFFIX}"


def newest_backup(folder: Path) -> Path:
    """The latest backup in a folder.

    Raises:
        BackupDamaged: there is none.
    """
    names = sorted(path for path in folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))
    if not names:
        raise BackupDamaged(f"{folder}: no backup is there: give the folder that the import wrote into, by --backups")
    return names[-1]


async def write_backup(source: Source, path: Path) -> Backup:
    """Reads a source to its end and writes what it gave.

    Raises:
        SourceUnreadable: the source cannot be read; nothing is left of the backup.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            await _write(source, file)
            file.flush()
            os.fsync(file.fileno())
        _write_text(_sum_of(path), f"{_sha256(unfinished)}  {path.name}\n")
        unfinished.replace(path)  # a sum without a file is nothing; a file without its sum would be damaged
        _sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
    return open_backup(path)


def open_backup(path: Path) -> Backup:
    """A backup, read to its end and compared with its sum.

    Raises:
        BackupDamaged: it is not as it was written.
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
        if first["eventstore-backup"] != FORMAT:
            raise BackupDamaged(f"{path}: is a backup of another version: use the version that wrote it")
        return Backup(
            path, first["source"], datetime.fromisoformat(first["taken_at"]), found, first["agents"], first["pending"],
            last["end"]["conversations"], last["end"]["messages"], last["end"]["tasks"],
        )  # fmt: skip
    except OSError as error:
        raise BackupDamaged(f"{path}: {error.strerror or error}: give a backup with its .sha256 beside it") from None
    except (ValueError, KeyError, TypeError, EOFError, StopIteration):
        raise BackupDamaged(f"{path}: is no backup of this program's: give one that it wrote") from None


async def _write(source: Source, file: IO[bytes]) -> None:
    counts = {"conversations": 0, "messages": 0, "tasks": 0}
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:

        def write(value: Json) -> None:
            packed.write(json.dumps(value, ensure_ascii=True).encode() + b"\n")

        write({
            "eventstore-backup": FORMAT,
            "source": source.name,
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


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
