"""JSON that PostgreSQL's ``jsonb`` returns equal to the value that was written.

``jsonb`` refuses NUL characters, lone surrogates and NaN, and keeps numbers as exact decimals. This is checked here, so
that the error can name the place. A ``float`` is written so that it keeps its value: ``1e23`` as
``99999999999999991611392.0``, its exact value, and not as the integer 10**23, which is another number in Python. Equal
values may differ as text: zero loses its sign, and :mod:`eventstore.member_order` keeps the order of members.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from pydantic_core import from_json as _parse_fast
from pydantic_core import to_json as _write_fast

from eventstore.errors import InvalidEvent

MAX_DEPTH = 200
"""Levels of nesting that are allowed; well below the limits of Python's and PostgreSQL's recursive parsers."""

LINE_SEPARATORS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Characters that end a line for ``str.splitlines``, by which also httpx divides a stream into lines."""

_EXACT_FLOATS = 1e16  # from here on repr() writes an exponent, which jsonb reads as an integer


def to_json(value: Any, path: str) -> bytes:
    """Return ``value`` as JSON, in UTF-8.

    Args:
        value: None, bool, int, float, str, and lists and string-keyed dicts of them.
        path: the name of the value in errors, such as ``content``.

    Raises:
        InvalidEvent: something in the value cannot be stored; the error names its place.
    """
    try:
        encoded = _write_fast(value) if _check(value, path, 1) else _write(value).encode()
    except ValueError:  # a lone surrogate
        encoded = b""
    if not encoded or b"\\u0000" in encoded:
        check_texts(value, path)  # raises, unless the text contains this escape literally
    assert encoded
    return encoded


def from_json(text: bytes) -> Any:
    """Return the value of a JSON text that PostgreSQL has written."""
    try:
        return _parse_fast(text, allow_inf_nan=False)
    except ValueError:  # it is nested too deep for the fast parser, or has a number that this cannot represent
        return json.loads(text)


def escape_line_separators(text: bytes) -> bytes:
    """Return a JSON text, in one line, with those :data:`LINE_SEPARATORS` escaped that JSON allows in a text."""
    for separator in "\x85\u2028\u2029":
        text = text.replace(separator.encode(), b"\\u%04x" % ord(separator))
    return text


def json_equal(a: Any, b: Any) -> bool:
    """Return whether two JSON values are equal as ``jsonb`` compares them: 1 and 1.0 are, 1 and true are not."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(json_equal(value, b[name]) for name, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(json_equal, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def check_text(text: str, path: str, *, longest: int | None = None) -> None:
    """Check a text that is stored in a column.

    Raises:
        InvalidEvent: it is not a text, contains a NUL character or a lone surrogate, or is longer than ``longest``
            characters.
    """
    if not isinstance(text, str):
        raise InvalidEvent(path, f"is a {type(text).__name__}: expected a text")
    if longest is not None and len(text) > longest:
        raise InvalidEvent(path, f"is {len(text):,} characters long, the limit is {longest}")
    if "\0" in text:
        raise InvalidEvent(
            path, f"has a NUL character at offset {text.index(chr(0))}, which PostgreSQL cannot store: remove it"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEvent(
            path, "has a lone surrogate, which is not Unicode text: decode the input correctly"
        ) from None


def _check(value: Any, path: str, depth: int) -> bool:
    """Check types and numbers. Return whether the plain JSON writer is exact for the value."""
    kind = type(value)
    if kind is str or kind is bool or value is None or isinstance(value, str):
        return True
    if isinstance(value, int):
        try:
            str(value)
        except ValueError:  # Python's limit on the digits that it converts: it could not read the number back
            raise InvalidEvent(path, "is an integer of more digits than Python reads: send it as a text") from None
        return True
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidEvent(path, f"is {value}, which is not a JSON number: send null or a text")
        return abs(value) < _EXACT_FLOATS
    if depth > MAX_DEPTH:
        raise InvalidEvent(path, f"is nested deeper than {MAX_DEPTH} levels")
    plain = True
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidEvent(path, f"has the key {key!r}, a {type(key).__name__}: JSON keys are texts")
            if type(item) is not str:  # most are
                plain &= _check(item, f"{path}.{key}", depth + 1)
        return plain
    if isinstance(value, list):
        for index, item in enumerate(value):
            plain &= _check(item, f"{path}[{index}]", depth + 1)
        return plain
    raise InvalidEvent(path, f"is a {type(value).__name__}, which JSON cannot express")


def check_texts(value: Any, path: str) -> None:
    """Check all texts in a JSON value.

    Args:
        path: the name of the value in the error.

    Raises:
        InvalidEvent: one of them contains a NUL character or a lone surrogate; names its place.
    """
    if isinstance(value, str):
        check_text(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, f"a key of {path}")
            check_texts(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_texts(item, f"{path}[{index}]")


def _write(value: Any) -> str:
    """Return a value with large floats as JSON. For all others, ``pydantic_core`` is exact and much faster."""
    if isinstance(value, float) and abs(value) >= _EXACT_FLOATS:
        return f"{Decimal(value):f}.0"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_write(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
