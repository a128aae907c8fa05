"""Files as lines, a chunk at a time: memory is bounded by the longest line, whatever the size of the file."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import cast

from eventstore.errors import InputError

STDIN = "-"
"""The path that means standard input."""

MAX_LINE_BYTES = 256 * 1024 * 1024
"""Longer lines are skipped: one has to fit in memory several times over."""

_CHUNK = 256 * 1024


class FileUnreadable(InputError):
    """A file does not exist or cannot be read."""

    def __init__(self, path: str, error: OSError | ValueError) -> None:
        super().__init__(f"{path}: {getattr(error, 'strerror', None) or error}: give files that exist and may be read")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file.

    Attributes:
        number: from 1.
        size: in bytes, its end included.
        text: without its end; None where it is longer than :data:`MAX_LINE_BYTES`.
    """

    number: int
    size: int
    text: bytes | None


def total_bytes(paths: Sequence[str]) -> int | None:
    """The size of all files together, None where one of them has no known length.

    Raises:
        FileUnreadable: one of them cannot be read.
    """
    sizes = [_size(path) for path in paths]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


async def lines(path: str) -> AsyncGenerator[Line, None]:
    """The lines of a file; they end at line feeds.

    Raises:
        FileUnreadable: it cannot be read.
    """
    number, size = 1, 0
    pieces: list[bytes] = []
    try:
        with _open(path) as file:
            slow = _may_keep_waiting(file)
            while chunk := await _next_chunk(file, slow):
                *ends, rest = chunk.split(b"\n")
                for end in ends:
                    pieces.append(end)
                    yield _line(number, size + len(end) + 1, pieces)
                    number, size, pieces = number + 1, 0, []
                size += len(rest)
                pieces.append(rest)
                if size > MAX_LINE_BYTES:
                    pieces.clear()
        if size:
            yield _line(number, size, pieces)
    except OSError as error:
        raise FileUnreadable(path, error) from error


def _line(number: int, size: int, pieces: list[bytes]) -> Line:
    return Line(number, size, b"".join(pieces) if size <= MAX_LINE_BYTES else None)


def _size(path: str) -> int | None:
    if path == STDIN:
        return None
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            with Path(path).open("rb"):
                return status.st_size
        if not os.access(path, os.R_OK):  # to open a pipe and close it again would end its writer
            raise PermissionError("Permission denied")
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise FileUnreadable(path, error) from error
    return None


def _open(path: str) -> AbstractContextManager[BufferedReader]:
    if path == STDIN:
        return nullcontext(cast(BufferedReader, sys.stdin.buffer))
    return Path(path).open("rb")


def _may_keep_waiting(file: BufferedReader) -> bool:
    """Whether the next bytes may be long in coming: from a terminal, a pipe, a socket."""
    try:
        return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # io.UnsupportedOperation is one: no file at all
        return False


async def _next_chunk(file: BufferedReader, slow: bool) -> bytes:
    if slow:
        await _readable(file.fileno())
    else:
        await asyncio.sleep(0)  # the other coroutines of the loop have their turn
    return file.read1(_CHUNK)


async def _readable(descriptor: int) -> None:
    """Waits until there is something to read, so that the wait can be cancelled; returns at once where it cannot."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except (NotImplementedError, OSError):  # no loop of this system can wait for it, or for a plain file
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
