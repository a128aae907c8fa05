"""A cursor leads to its place; a damaged one, or one of another list, is refused."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import InputError, InvalidCursor
from projections.pages import CursorFormat

TYPES = (datetime, UUID, int)
times = st.datetimes(timezones=st.just(UTC)) | st.just(datetime.max.replace(tzinfo=UTC))
places = st.tuples(times, st.uuids(), st.integers(0, 2**63 - 1))
MESSAGES = CursorFormat("messages", True, {"tenant": "default", "role": None}, TYPES)
CURSOR = MESSAGES.encode((datetime(2026, 1, 1, tzinfo=UTC), UUID(int=7), 7))


@given(places)
def test_a_cursor_decodes_to_its_place(place: tuple[Any, ...]) -> None:
    assert MESSAGES.decode(MESSAGES.encode(place)) == place


@given(places, st.data())
def test_a_damaged_cursor_is_refused(place: tuple[Any, ...], data: st.DataObject) -> None:
    cursor = MESSAGES.encode(place)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from("ABCDEFxyz0189-_ =é"))
    damaged = cursor[:at] + data.draw(st.sampled_from(["", other, other + cursor[at]])) + cursor[at + 1 :]
    if decoded(damaged) == decoded(cursor):
        assert MESSAGES.decode(damaged) == place  # bits that Base64 does not use
    else:
        with pytest.raises(InvalidCursor, match="damaged"):
            MESSAGES.decode(damaged)


def decoded(cursor: str) -> bytes | None:
    try:
        return urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except ValueError:
        return None


@given(st.text() | st.binary().map(lambda value: value.hex()))
def test_a_text_that_is_not_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        MESSAGES.decode(text)


def test_a_cursor_that_is_not_a_text_is_refused() -> None:
    with pytest.raises(InputError, match="a int is not a cursor"):
        MESSAGES.decode(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (CursorFormat("tasks", True, MESSAGES.filters, TYPES), "is one of messages, not of tasks"),
        (
            CursorFormat("messages", False, MESSAGES.filters, TYPES),
            "in the order newest first, not oldest first",
        ),
        (CursorFormat("messages", True, {"tenant": "other"}, TYPES), "another tenant or with other filters"),
        (CursorFormat("messages", True, {"tenant": "default", "role": "user"}, TYPES), "other filters"),
        (CursorFormat("messages", True, MESSAGES.filters, (int,)), "damaged"),
    ],
)
def test_a_cursor_of_another_list_is_refused(other: CursorFormat, reason: str) -> None:
    with pytest.raises(InvalidCursor, match=reason):
        other.decode(CURSOR)


def test_the_zone_of_a_filter_does_not_matter() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    there = moment.astimezone(timezone(timedelta(hours=3)))
    first, other = (CursorFormat("tasks", False, {"since": since}, (int,)) for since in (moment, there))
    assert other.decode(first.encode((3,))) == (3,)


def test_an_omitted_filter_equals_none() -> None:
    other = CursorFormat("messages", True, {"tenant": "default"}, TYPES)
    assert other.decode(CURSOR) == MESSAGES.decode(CURSOR)
