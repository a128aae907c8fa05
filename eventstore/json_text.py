"""JSON text that PostgreSQL's ``jsonb`` gives back equal to the value it was made of.

``jsonb`` refuses NUL characters and lone surrogates, knows no NaN, and keeps numbers as exact decimals. Checked
here, so that the error can name the place; and written here so that a ``float`` survives: ``1e23`` is sent as
``99999999999999991611392.0``, the value it has, and not as the integer 10**23, which
is another number in Python. Equal is not the same text: zero loses its sign, and the order of the members of objects
is kept elsewhere (:mod:`eventstore.member_order`).
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from pydantic_core import from_json
from pydantic_core import to_json as _write_plain

from eventstore.errors import InvalidEvent

MAX_DEPTH = 200
"""Levels of nesting allowed; well below what Python's and PostgreSQL's recursive parsers bear."""

_EXACT_FLOATS = 1e16  # from here on repr() writes an exponent, and jsonb would make an integer of it


def to_json(value: Any, path: str) -> bytes:
    """Writes ``value`` as JSON, in UTF-8.

    Args:
        value: None, bool, int, float, str, and lists and string-keyed dicts of them.
        path: how errors call the value, such as ``content``.

    Raises:
        InvalidEvent: something in the value cannot be stored; names where it stands.
    """
    try:
        encoded = _write_plain(value) if _check(value, path, 1) else _write(value).encode()
    except ValueError:  # of a lone surrogate; both writers raise a kind of this
        encoded = b""
    if not encoded or b"\\u0000" in encoded:
        _check_texts(value, path)  # raises, unless the text only speaks of such a character
    assert encoded
    return encoded


def load(text: bytes) -> Any:
    """The value of a JSON text as PostgreSQL writes it."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:  # nested too deep for the fast reader, or a number beyond it
        return json.loads(text)


def check_text(text: str, path: str, *, longest: int | None = None) -> None:
    """Checks a text that is stored in a column of its own.

    Raises:
        InvalidEvent: it is not a text, holds a NUL character or a lone surrogate, or is longer than ``longest``
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
    if not _is_unicode(text):
        raise InvalidEvent(path, "has a lone surrogate, which is not Unicode text: decode the input correctly")


def _check(value: Any, path: str, depth: int) -> bool:
    """Checks types and numbers; tells whether the plain JSON writer is exact for the value."""
    kind = type(value)
    if kind is str or kind is bool or value is None or isinstance(value, str):
        return True
    if isinstance(value, int):
        return _check_int(value, path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidEvent(path, f"is {value}, which JSON has no number for: send null or a text")
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


def _check_int(value: int, path: str) -> bool:
    try:
        str(value)
    except ValueError:  # Python's own bound on the digits it converts; it could not read the number back
        raise InvalidEvent(path, "is an integer of more digits than Python reads: send it as a text") from None
    return True


def _check_texts(value: Any, path: str) -> None:
    """Finds the text that cannot be stored, and raises."""
    if isinstance(value, str):
        check_text(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, f"a key of {path}")
            _check_texts(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_texts(item, f"{path}[{index}]")


def _write(value: Any) -> str:
    """The writer for values with large floats; the plain one is in C and much faster."""
    if isinstance(value, float) and abs(value) >= _EXACT_FLOATS:
        return f"{Decimal(value):f}.0"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_write(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def equal(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal as ``jsonb`` compares them: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
