"""Cursors: where a page ended, as a text that means nothing to whoever keeps it.

A cursor carries what it was made for: the kind of list, its order, and a hash of its tenant and filters. So one that is
used for another list is refused instead of beginning somewhere. The check sum finds damage; it is no signature, for a
cursor that somebody made up can do no more than begin the same list, of the same tenant, at another place.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import blake2b
from typing import Any
from uuid import UUID

from eventstore.errors import InvalidCursor, printable

_CHECK_BYTES = 6
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HIGHEST = 2**63 - 1


@dataclass(frozen=True)
class Purpose:
    """What a cursor is made for.

    Attributes:
        kind: of the list, in words.
        order: in words.
        filters: everything else that decides which rows are in the list.
        types: of the values that say where a row stands in the order: ``datetime``, ``UUID`` or ``int``.
    """

    kind: str
    order: str
    filters: Mapping[str, Any]
    types: Sequence[type]

    def write(self, place: Sequence[Any]) -> str:
        """The cursor of the rows beyond a place."""
        told = [self.kind, self.order, self._hash, *map(_plain, place)]
        body = json.dumps(told, separators=(",", ":")).encode()
        return urlsafe_b64encode(_check(body) + body).decode().rstrip("=")

    def read(self, cursor: str) -> tuple[Any, ...]:
        """The place that a cursor stands for.

        Raises:
            InvalidCursor: it is damaged, or was made for something else.
        """
        kind, order, filters, *place = _opened(cursor)
        if kind != self.kind:
            raise InvalidCursor(f"the cursor is one of {kind}, not of {self.kind}: begin this list without a cursor")
        if order != self.order:
            raise InvalidCursor(f"the cursor is of a list that has the {order}, not the {self.order}: keep the order")
        if filters != self._hash:
            raise InvalidCursor(
                "the cursor is of a list of another tenant or with other filters: keep them as they were"
            )
        try:
            return tuple(_value(kind, value) for kind, value in zip(self.types, place, strict=True))
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise _damaged(cursor) from None

    @cached_property
    def _hash(self) -> str:
        given = sorted((name, str(_plain(value))) for name, value in self.filters.items() if value is not None)
        return blake2b(repr(given).encode(), digest_size=9).hexdigest()


def _opened(cursor: str) -> list[Any]:
    if not isinstance(cursor, str):
        raise InvalidCursor(f"a {type(cursor).__name__} is no cursor: give the next of a page, as it was")
    try:
        whole = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        body = whole[_CHECK_BYTES:]
        told = json.loads(body.decode()) if whole[:_CHECK_BYTES] == _check(body) else None
    except (ValueError, Base64Error):
        told = None
    if not isinstance(told, list) or len(told) < 3:
        raise _damaged(cursor)
    return told


def _damaged(cursor: str) -> InvalidCursor:
    return InvalidCursor(
        f"the cursor {printable(cursor, 60)!r} is damaged: give the next of a page, whole and unchanged"
    )


def _check(body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECK_BYTES).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    return value.hex if isinstance(value, UUID) else value


def _value(kind: type, plain: Any) -> Any:
    if kind is datetime:
        return _EPOCH + plain * _MICROSECOND
    if kind is UUID:
        return UUID(plain)
    if type(plain) is not int or abs(plain) > _HIGHEST:
        raise ValueError("not a number of the log")
    return plain
