"""Files of conversations as JSON values: folders, archives, compression and encodings.

A file is read in chunks and never held.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import stat
import sys
import tempfile
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

from agent_manager.importers.chats import MalformedChat
from agent_manager.importers.json_values import IsMany, JsonValue, NotJson, split_values
from eventstore.errors import InputError

STDIN = "-"
"""The path that means standard input."""

CHUNK_BYTES = 256 * 1024
PIECE_BYTES = 8 * 1024
"""The bytes that are decompressed at a time: a bomb expands them a few thousandfold at most."""
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_EXPORT = re.compile(r"(^|/)conversations(-\d+)?\.json$")
"""The conversations in an archive as ChatGPT and Claude export them. What else is in it is not conversations."""


class FileUnreadable(InputError):
    """A file does not exist or cannot be read."""

    def __init__(self, path: str, error: Exception | str) -> None:
        reason = getattr(error, "strerror", None) or error
        super().__init__(f"{path}: {reason}: give files that exist and can be read")


@dataclass(frozen=True, slots=True)
class FileProblem:
    """The reason why a file, or one in an archive, could not be read to its end. The values before were yielded."""

    file: str
    error: NotJson | MalformedChat


# Paths


def expanded(paths: Sequence[str]) -> list[str]:
    """Return the files, instead of a folder those in it and in its folders, sorted by name, without hidden ones."""
    files: list[str] = []
    for path in paths:
        if path == STDIN or not os.path.isdir(path):
            files.append(path)
            continue
        found = []
        for folder, folders, names in os.walk(path, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [os.path.join(folder, name) for name in names if not name.startswith(".")]
        found = sorted((name for name in found if os.path.isfile(name)), key=lambda name: Path(name).parts)
        if not found:
            raise FileUnreadable(path, "the folder holds no files")
        files += found
    return files


def _raise(error: OSError) -> None:
    raise FileUnreadable(str(error.filename), error) from error


def total_bytes(paths: Sequence[str]) -> int | None:
    """Return the size of all files together; None if one has no known length."""
    total, is_known = 0, True
    for path in paths:
        if path == STDIN:
            is_known = False
            continue
        try:
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                with Path(path).open("rb"):
                    total += status.st_size
            elif os.access(path, os.R_OK):  # opening a pipe and closing it again would end its writer
                is_known = False
            else:
                raise PermissionError("Permission denied")
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
            raise FileUnreadable(path, error) from error
    return total if is_known else None


# Bytes: archives, compression, encodings


Found: TypeAlias = JsonValue | FileProblem


async def values(path: str, is_many: IsMany, on_read: Callable[[int], None]) -> AsyncGenerator[Found, None]:
    """Yield the JSON values of a file; of an archive, those of its files.

    Args:
        path: a file, or ``-``.
        is_many: see :data:`IsMany`.
        on_read: called with the number of bytes that were read from the file.

    Raises:
        FileUnreadable: the file cannot be read.
    """
    try:
        with _open(path) as file:
            head, chunks = await _peek(_chunks(file, on_read))
            is_archive = head.startswith((b"PK\x03\x04", b"PK\x05\x06"))
            read = _values_of_archive(path, file, chunks, is_many, on_read) if is_archive else None
            async with aclosing(read or _values(path, chunks, is_many)) as found:
                async for value in found:
                    yield value
    except OSError as error:
        raise FileUnreadable(path, error) from error


def _open(path: str) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb")


async def _values_of_archive(
    path: str, file: IO[bytes], chunks: AsyncIterator[bytes], is_many: IsMany, on_read: Callable[[int], None]
) -> AsyncGenerator[Found, None]:
    is_counted = not file.seekable()
    with tempfile.TemporaryFile() as copy:
        if is_counted:  # a pipe: the directory of an archive is at its end
            async for chunk in chunks:
                copy.write(chunk)
            file = copy
        try:
            with zipfile.ZipFile(file) as archive:
                for member in _members(archive):
                    share = 0 if is_counted else member.compress_size / max(1, member.file_size)
                    with archive.open(member) as inner:
                        content = _chunks(inner, on_read, share)
                        async with aclosing(_values(f"{path}/{member.filename}", content, is_many)) as found:
                            async for value in found:
                                yield value
        # NotImplementedError: its compression is not known here; RuntimeError: it has a password.
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            yield FileProblem(path, MalformedChat(f"is not an archive that can be read: {error}"))


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the files of an archive that may hold conversations, in the order of their names."""
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX") and "/." not in f"/{member.filename}"
    ]
    exported = [member for member in members if _EXPORT.search(member.filename)]
    return sorted(exported or members, key=lambda member: member.filename.split("/"))


async def _values(name: str, chunks: AsyncIterator[bytes], is_many: IsMany) -> AsyncGenerator[Found, None]:
    head, chunks = await _peek(chunks)
    try:
        async for value in split_values(name, _in_utf_8(_decompressed(chunks, head)), is_many):
            yield value
    except NotJson as error:
        yield FileProblem(name, error)
    except (zlib.error, EOFError, UnicodeError) as error:
        yield FileProblem(name, MalformedChat(f"is cut off or damaged: {error}"))


async def _chunks(file: IO[bytes], on_read: Callable[[int], None], share: float = 1) -> AsyncGenerator[bytes, None]:
    while chunk := await _next_chunk(file):
        on_read(int(len(chunk) * share))
        yield chunk


async def _next_chunk(file: IO[bytes]) -> bytes:
    """Return the next bytes of a file; wait for a terminal, pipe or socket in a way that can be cancelled."""
    read1: Callable[[int], bytes] = file.read1  # type: ignore[attr-defined]  # of buffered files, which all these are
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        descriptor = file.fileno()
        loop.add_reader(descriptor, ready.set)
    except (NotImplementedError, OSError):  # a loop without add_reader, a regular file, or a stream that is not a file
        await asyncio.sleep(0)  # let the other coroutines of the loop run
        return read1(CHUNK_BYTES)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return read1(CHUNK_BYTES)


async def _peek(chunks: AsyncIterator[bytes]) -> tuple[bytes, AsyncGenerator[bytes, None]]:
    """Return the first bytes, at least four unless there are fewer, and all chunks."""
    head = b""
    while len(head) < 4 and (chunk := await anext(chunks, b"")):
        head += chunk
    return head, _joined(head, chunks)


async def _joined(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    if head:
        yield head
    async for chunk in chunks:
        yield chunk


async def _decompressed(chunks: AsyncIterator[bytes], head: bytes) -> AsyncGenerator[bytes, None]:
    """Yield the content of chunks in gzip or zstd, by the beginning of the first; otherwise the chunks.

    The content may consist of several members, with zeros after them. What is damaged raises zlib.error or EOFError.
    """
    make: Callable[[], Any] = partial(zlib.decompressobj, wbits=31)
    error_type: type[Exception] = zlib.error
    if head.startswith(_ZSTD):
        import zstandard  # imported when used: it takes a twentieth of a second

        make, error_type = zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError
    elif not head.startswith(_GZIP):
        async for chunk in chunks:
            yield chunk
        return
    decompressor = None
    async for chunk in chunks:
        while chunk := chunk if decompressor else chunk.lstrip(b"\0"):
            decompressor = decompressor or make()
            piece, chunk = chunk[:PIECE_BYTES], chunk[PIECE_BYTES:]
            try:
                content = decompressor.decompress(piece)
            except error_type as error:
                raise zlib.error(str(error)) from error
            for start in range(0, len(content), CHUNK_BYTES):
                yield content[start : start + CHUNK_BYTES]
            if decompressor.eof:
                chunk, decompressor = decompressor.unused_data + chunk, None
    if decompressor is not None:
        raise EOFError("the compressed data ends too early")


async def _in_utf_8(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the content in UTF-8 and without a byte order mark, whether it is in UTF-8, UTF-16 or UTF-32."""
    head, chunks = await _peek(chunks)
    encoding = json.detect_encoding(head) if len(head) > 1 else "utf-8"
    if encoding.startswith("utf-8"):  # malformed UTF-8 is an error of the value that contains it
        await anext(chunks, b"")
        async for chunk in _joined(head.removeprefix(codecs.BOM_UTF8), chunks):
            yield chunk
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    async for chunk in chunks:
        yield decoder.decode(chunk).encode()
    yield decoder.decode(b"", final=True).encode()
