"""Files that hold conversations: only their owner can read them, and they are written atomically and durably."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, BufferedWriter
from pathlib import Path
from uuid import uuid4


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter. An existing folder keeps its permissions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)


def write_private(path: Path, text: str) -> None:
    """Write a text file that only its owner can read."""
    with replacing(path) as file:
        file.write(text.encode())


def append_private(path: Path) -> BufferedWriter:
    """Open a file to append to it; a new one can only be read by its owner."""
    return open(path, "ab", opener=_open_private)


@contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """Open a file that replaces the one at a path at the end of the block, and is removed if the block fails."""
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(unfinished, "x+b", opener=_open_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # makes the name durable
        finally:
            os.close(folder)
    finally:
        unfinished.unlink(missing_ok=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
