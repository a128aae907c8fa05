"""The digest of an event, written down a second time from ``docs/concepts/digest.md``, without the store's own code."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def event_bytes(row: Mapping[str, Any]) -> bytes:
    """Return the bytes that are hashed; the row has the columns of ``events`` by name."""
    return (
        row["salt"]
        + struct.pack(">q", row["position"])
        + struct.pack(">q", (row["timestamp"] - _EPOCH) // timedelta(microseconds=1))
        + struct.pack(">i", row["version"])
        + struct.pack(">h", row["schema_version"])
        + UUID(str(row["conversation_id"])).bytes
        + UUID(str(row["id"])).bytes
        + _text(row["tenant_id"])
        + _text(row["event_type"])
        + _text(row["actor"])
        + _text(canonical(row["content"]))
        + _text(canonical(row["metadata"]))
    )


def event_digest(row: Mapping[str, Any]) -> bytes:
    """SHA-256 of :func:`event_bytes`."""
    return sha256(event_bytes(row)).digest()


def canonical(value: Any) -> str:
    """A JSON value as ``jsonb`` prints it."""
    if isinstance(value, dict):
        members = sorted((len(key.encode()), key.encode(), key) for key in value)
        return "{" + ", ".join(f"{_string(key)}: {canonical(value[key])}" for *_, key in members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(canonical, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float | Decimal):
        return _decimal(value)
    return json.dumps(value)


def read_json(text: str) -> Any:
    """Reads JSON text with its numbers as exact decimals."""
    return json.loads(text, parse_float=Decimal)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">i", len(data)) + data


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _decimal(number: float | Decimal) -> str:
    if isinstance(number, float):
        # As the store sends it: from 1e16 on the exact value, below the shortest text that reads back equal.
        number = Decimal(f"{Decimal(number):f}.0" if abs(number) >= 1e16 else repr(number))
    text = f"{number:f}"
    return text.removeprefix("-") if number == 0 else text
