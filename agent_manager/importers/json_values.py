"""The division of a text into JSON values: lines, the elements of an array, or whole documents.

Memory is bounded by the longest value. The values are found by counting brackets, and parsed one by one by the caller,
so that a malformed value concerns nothing but itself.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from eventstore.errors import InputError

MAX_VALUE_BYTES = 256 * 1024 * 1024
"""Longer values are skipped: a value has to fit in memory several times."""
HEAD_BYTES = 1024 * 1024
"""The beginning of a file that decides between lines and documents."""
_MEMBERS = rb'"(conversations|chats|data|items|threads|sessions)"\s*:\s*'
"""The members of a document that may hold many conversations."""
_MEMBER = re.compile(_MEMBERS + rb"$")
_WRAPPER = re.compile(rb'\{(?:\s*"[^"]*"\s*:\s*(?:"[^"]*"|[\w.+-]+)\s*,)*\s*' + _MEMBERS + rb"\[")


class NotJson(InputError):
    """A file does not hold JSON."""


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A JSON value in a file, not yet parsed.

    Attributes:
        file: the path; of a file in an archive, with its name in it.
        line: where the value begins, counted from 1.
        place: the path of an element in its document, such as ``[3]``; empty for a line and a whole document.
        size: in bytes, with what precedes it.
        text: in UTF-8; None if it is longer than :data:`MAX_VALUE_BYTES`.
    """

    file: str
    line: int
    place: str
    size: int
    text: bytes | None


IsMany = Callable[[bytes, bool], bool]
"""Returns whether each element of an array is a conversation, rather than the array one conversation: by its first
element, and whether the array is a member of an object."""


async def split_values(name: str, chunks: AsyncIterator[bytes], is_many: IsMany) -> AsyncGenerator[JsonValue, None]:
    """Yield the values of a text in UTF-8. Raise NotJson if it cannot be JSON, EOFError if it ends within a value."""
    head, are_lines = b"", None
    while len(head) < HEAD_BYTES and are_lines is None and (chunk := await anext(chunks, b"")):
        head += chunk
        are_lines = _are_lines(head)
    text = head.lstrip()
    if text and not are_lines and not text.startswith((b"{", b"[")):
        raise NotJson(f"is not JSON: it begins with {_shown(text)}")
    is_document = are_lines is False or (are_lines is None and _WRAPPER.match(text))
    splitter = Documents(name, is_many) if is_document else Lines(name, is_many)
    for value in splitter.feed(head):
        yield value
    async for chunk in chunks:
        for value in splitter.feed(chunk):
            yield value
    for value in splitter.end():
        yield value


def _shown(beginning: bytes) -> str:
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(beginning[:40]).partition("\n")[0].rstrip()
    return repr(text) if text.isprintable() and "\ufffd" not in text else f"the bytes {beginning[:8].hex(' ')}"


def _are_lines(head: bytes) -> bool | None:
    """Return whether each line of a file that begins so is a value; None if that is not known yet.

    Of an object as a document, no line is an object that is not indented. An array is a document even on one line,
    unless another array follows on the next one.
    """
    text = head.lstrip()
    *lines, _ = text.split(b"\n")
    if text.startswith(b"["):
        first = [line for line in lines if line.strip()][:2]
        return len(first) == 2 and all(_is_value(line, b"[") for line in first)
    return any(_is_value(line, b"{") for line in lines) if lines else None


def _is_value(line: bytes, bracket: bytes) -> bool:
    try:
        return line.startswith(bracket) and bool(json.loads(line))
    except (ValueError, RecursionError):
        return False


class Lines:
    """Divides a text into lines, which end at line feeds; a line with many conversations into its elements."""

    def __init__(self, file: str, is_many: IsMany) -> None:
        self._file, self._is_many = file, is_many
        self._line, self._size = 1, 0
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[JsonValue]:
        """Yield the lines that end in the next part of the text."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._pieces.append(end)
            yield from self._values(self._size + len(end) + 1)
            self._line, self._size, self._pieces = self._line + 1, 0, []
        self._size += len(rest)
        self._pieces.append(rest)
        if self._size > MAX_VALUE_BYTES:
            self._pieces.clear()

    def end(self) -> Iterator[JsonValue]:
        """Yield the last line, if it does not end with a line feed."""
        if self._size:
            yield from self._values(self._size)

    def _values(self, size: int) -> Iterator[JsonValue]:
        text = b"".join(self._pieces) if size <= MAX_VALUE_BYTES else None
        if text is not None and _WRAPPER.match(text):
            divided = Documents(self._file, self._is_many)
            with suppress(EOFError):
                elements = [*divided.feed(text), *divided.end()]
                if any(element.place for element in elements):
                    yield from (replace(element, line=self._line) for element in elements)
                    return
        yield JsonValue(self._file, self._line, "", size, text)


_SPACE = re.compile(rb"[\s,]*+")
_SCALAR = re.compile(rb'"(?:[^"\\\n]++|\\.)*+(?:"|\\\Z)?|[^\s,\[\]{}"]++')
"""A value that is neither an array nor an object, up to the end of the buffer if it is not complete yet."""
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""All up to the next bracket that is not in a string, or up to a string that is not complete yet."""
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


def _end(pattern: re.Pattern[bytes], buffer: bytearray, start: int) -> int:
    """Return where a match ends that begins at a position; there always is one."""
    match = pattern.match(buffer, start)
    assert match is not None
    return match.end()


@dataclass(slots=True)
class _Array:
    """An array that may hold many conversations: its first element will show whether it does.

    Attributes:
        depth: of its elements.
        first: where its first array or object begins; None before that.
    """

    depth: int
    name: str
    begins: int
    first: int | None = None


class Documents:
    """Divides a text into its documents, and those that are arrays of conversations into their elements."""

    def __init__(self, file: str, is_many: IsMany) -> None:
        self._file, self._is_many = file, is_many
        self._buffer = bytearray()
        self._at = 0  # how far the buffer was looked at
        self._line, self._index, self._name = 1, 0, ""
        self._depth = 0
        self._depth_of_values = 0  # 1 or 2 in an array of conversations
        self._start: int | None = None  # of the present value
        self._array: _Array | None = None
        self._is_in_string = False
        self._is_one = False  # the present value is one conversation
        self._is_too_long = False  # the present value, which is not kept
        self._is_rest = False  # the present value is what follows the conversations in a document

    def feed(self, chunk: bytes) -> Iterator[JsonValue]:
        """Yield the values that end in the next part of the text."""
        self._buffer += chunk
        yield from self._scan(is_last=False)
        if self._start is not None and self._at - self._start > MAX_VALUE_BYTES:
            self._is_too_long, self._array = True, None
        if self._start is None or self._is_too_long or self._is_rest:
            self._forget(self._at)

    def end(self) -> Iterator[JsonValue]:
        """Yield a last value. Raise EOFError if the text ends within one, or within an array of conversations."""
        yield from self._scan(is_last=True)
        if self._depth:
            line = self._line + self._buffer.count(b"\n", 0, self._start or 0)
            raise EOFError(f"the text ends within the JSON value that begins in line {line}")

    def _scan(self, *, is_last: bool) -> Iterator[JsonValue]:
        buffer = self._buffer
        while True:
            skipped = _SPACE if self._start is None else _IN_STRING if self._is_in_string else _TO_BRACKET
            self._at = _end(skipped, buffer, self._at)
            if self._at == len(buffer):
                return
            byte = bytes(buffer[self._at : self._at + 1])
            if byte in b"[{":
                self._open(byte)
            elif byte in b"]}":
                yield from self._close()
            elif self._start is None:  # a value that is neither an array nor an object
                end = _end(_SCALAR, buffer, self._at)
                if end == len(buffer) and not is_last:
                    return
                yield self._value(self._at, end)
            elif byte == b'"':
                self._is_in_string = not self._is_in_string
                self._at += 1
            else:  # the first half of an escape
                return

    def _open(self, bracket: bytes) -> None:
        if self._start is None:
            self._start = self._at
        array = self._array
        if array is not None and array.first is None and array.depth == self._depth:
            array.first = self._at
        self._depth += 1
        self._at += 1
        is_undecided = not (array or self._depth_of_values or self._is_one or self._is_too_long or self._is_rest)
        if bracket == b"[" and is_undecided and self._depth <= 2:
            if self._depth == 1:
                self._array = _Array(1, "", self._at)
            elif self._buffer.startswith(b"{", self._start) and (member := _MEMBER.search(self._before())):
                self._array = _Array(2, member[1].decode(), self._at)

    def _before(self) -> bytes:
        """Return what precedes a bracket: enough for the name of a member."""
        return bytes(self._buffer[max(0, self._at - 100) : self._at - 1])

    def _close(self) -> Iterator[JsonValue]:
        self._depth -= 1
        self._at += 1
        array = self._array
        if array is not None and self._depth <= array.depth:
            self._array = None
            if self._depth == array.depth and array.first is not None:
                self._is_one = not self._is_many(bytes(self._buffer[array.first : self._at]), array.depth == 2)
                if not self._is_one:
                    self._depth_of_values, self._name = array.depth, array.name
                    yield from self._first_values(array.begins, array.first)
        if self._depth < 0:  # a bracket that closes nothing
            self._depth = 0
            yield self._value(self._at - 1, self._at)
        elif self._depth == self._depth_of_values and self._start is not None:
            if self._is_rest:
                self._start, self._is_rest = None, False
            else:
                yield self._value(self._start, self._at)
        elif self._depth < self._depth_of_values:  # the end of an array of conversations
            self._depth_of_values = self._index = 0
            if self._depth:
                self._start, self._is_rest = self._at, True

    def _first_values(self, begins: int, first: int) -> Iterator[JsonValue]:
        """Yield the values before the first array or object of an array, which becomes the present value."""
        length = len(self._buffer)
        while (begins := _end(_SPACE, self._buffer, begins)) < first:
            end = min(first, _end(_SCALAR, self._buffer, begins))
            yield self._value(begins, end)
            begins, first = 0, first - (length - len(self._buffer))
            length = len(self._buffer)
        self._start = first

    def _value(self, start: int, end: int) -> JsonValue:
        line = self._line + self._buffer.count(b"\n", 0, start)
        place = f"{self._name}[{self._index}]" if self._depth_of_values else ""
        self._index += bool(self._depth_of_values)
        text = None if self._is_too_long else bytes(self._buffer[start:end])
        self._start, self._is_too_long, self._is_one = None, False, False
        self._forget(end)
        return JsonValue(self._file, line, place, end, text)

    def _forget(self, end: int) -> None:
        """Remove the beginning of the buffer."""
        self._line += self._buffer.count(b"\n", 0, end)
        del self._buffer[:end]
        self._at = max(0, self._at - end)
        if self._start is not None:
            self._start = max(0, self._start - end)
