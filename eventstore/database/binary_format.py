"""PostgreSQL's binary format, for the values of an append: ten times as fast as adapting them one by one.

Source: the send and receive functions of the types in PostgreSQL, and the protocol's chapter of its manual.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

# OIDs of pg_type, which never change.
INT8, INT2, INT4, TEXT, UUID, JSONB = 20, 21, 23, 25, 2950, 3802
INT2_ARRAY, INT4_ARRAY, TEXT_ARRAY, UUID_ARRAY, JSONB_ARRAY = 1005, 1007, 1009, 2951, 3807

_HEADER = struct.Struct(">iiIii")  # dimensions, has nulls, element type, number of elements, lower bound
_LENGTH = struct.Struct(">i").pack
_INT4 = struct.Struct(">i")
_INT8 = struct.Struct(">q")
_JSONB_FORMAT = b"\x01"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""The epoch of PostgreSQL's timestamps."""

int2 = struct.Struct(">h").pack
int4 = _INT4.pack
int8 = _INT8.pack


def jsonb(text: bytes) -> bytes:
    """Return a JSON text in UTF-8 as a ``jsonb``."""
    return _JSONB_FORMAT + text


def array(element_type: int, values: Sequence[bytes]) -> bytes:
    """Return a one-dimensional array of values, without nulls."""
    parts = [_HEADER.pack(1, 0, element_type, len(values), 1)]
    for value in values:
        parts += (_LENGTH(len(value)), value)
    return b"".join(parts)


def jsonb_array(texts: Sequence[bytes]) -> bytes:
    """Return a ``jsonb[]`` of JSON texts in UTF-8."""
    parts = [_HEADER.pack(1, 0, JSONB, len(texts), 1)]
    for text in texts:
        parts += (_LENGTH(len(text) + 1), _JSONB_FORMAT, text)
    return b"".join(parts)


def int4_array(values: Sequence[int]) -> bytes:
    """Return an ``integer[]``."""
    pairs = [4] * (2 * len(values))
    pairs[1::2] = values
    return _HEADER.pack(1, 0, INT4, len(values), 1) + struct.pack(f">{len(pairs)}i", *pairs)


def elements(array: bytes) -> list[bytes | None]:
    """Return the elements of a one-dimensional array, each in the format of its type; None for NULL."""
    found: list[bytes | None] = []
    offset = _HEADER.size
    while offset < len(array):
        (length,) = _INT4.unpack_from(array, offset)
        offset += 4
        found.append(array[offset : offset + length] if length >= 0 else None)
        offset += max(length, 0)
    return found


def to_int4(value: bytes) -> int:
    """Return the value of an ``integer``."""
    return int(_INT4.unpack(value)[0])


def to_int8(value: bytes) -> int:
    """Return the value of a ``bigint``."""
    return int(_INT8.unpack(value)[0])


def to_timestamp(microseconds: int) -> datetime:
    """Return the value of a ``timestamptz``, in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def members(record: bytes) -> list[bytes | None]:
    """Return the fields of a composite value, each in the format of its type; None for NULL."""
    fields: list[bytes | None] = []
    offset = 4  # after the number of fields; each begins with its type and its length
    for _ in range(to_int4(record[:4])):
        length = to_int4(record[offset + 4 : offset + 8])
        offset += 8
        fields.append(record[offset : offset + length] if length >= 0 else None)
        offset += max(length, 0)
    return fields
