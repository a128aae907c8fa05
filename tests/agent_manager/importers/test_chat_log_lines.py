"""Files are read as numbered lines, however they are divided into chunks."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_manager.importers import FileUnreadable, chat_log
from agent_manager.importers.chat_log import Line, lines, total_bytes


class Chunks(io.BytesIO):
    """A stream that gives a few bytes at a time, whatever it is asked for."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self._size = size

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return the next chunk."""
        return super().read1(self._size)


@pytest.fixture(params=[1, 2, 3, 7, 64])
def standard_input(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Give standard input a content, which arrives so many bytes at a time."""

    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Chunks(content, request.param)))

    return give


async def read(path: Path | str) -> list[tuple[int, bytes | None]]:
    return [(line.number, line.text) async for line in lines(str(path))]


async def test_lines_do_not_depend_on_the_chunks(standard_input: Callable[[bytes], None], tmp_path: Path) -> None:
    content = b"one\n\ntwo\r\n" + "três\u2028\x0b".encode() + b"\nlast"
    standard_input(content)
    path = tmp_path / "log"
    path.write_bytes(content)
    assert (
        await read("-")
        == await read(path)
        == [
            (1, b"one"),
            (2, b""),
            (3, b"two\r"),
            (4, "três\u2028\x0b".encode()),
            (5, b"last"),
        ]
    )
    assert sum([line.size async for line in lines(str(path))]) == path.stat().st_size


async def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert await read(tmp_path / "log") == []


async def test_a_line_beyond_the_limit_is_skipped(
    standard_input: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_log, "MAX_LINE_BYTES", 10)
    standard_input(b"first\n" + b"x" * 1000 + b"\n" + b"y" * 9 + b"\n" + b"z" * 50)
    assert await read("-") == [(1, b"first"), (2, None), (3, b"y" * 9), (4, None)]


async def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(FileUnreadable, match=path.name):
            total_bytes([str(path)])
        with pytest.raises(FileUnreadable, match=path.name):
            await read(path)
    with pytest.raises(FileUnreadable):
        total_bytes(["a\0b"])


def test_the_total_is_unknown_with_standard_input(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"12345")
    assert total_bytes([str(tmp_path / "log")] * 2) == 10
    assert total_bytes([str(tmp_path / "log"), "-"]) is None


async def test_standard_input_may_be_any_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb")))
    assert await read("-") == [(1, b"a"), (2, b"b")]


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of a pipe to write to, whose other end is standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
        yield writing


async def test_a_slow_standard_input_does_not_block_the_loop(typing: int) -> None:
    found = lines("-")
    waiting = asyncio.ensure_future(anext(found))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    os.write(typing, b"a line\n")
    assert await waiting == Line(1, 7, b"a line")
    os.close(typing)
    assert [line async for line in found] == []


async def test_waiting_for_standard_input_can_be_cancelled(typing: int) -> None:
    waiting = asyncio.ensure_future(read("-"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(typing)
