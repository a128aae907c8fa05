"""Files that hold conversations: readable by their owner only, written whole or not at all, and durable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, BufferedWriter
from pathlib import Path


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
