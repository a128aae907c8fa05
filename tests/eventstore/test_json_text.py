"""Every JSON value comes back from PostgreSQL equal to what was sent, or is refused with the place named."""

from __future__ import annotations

import enum
import math
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.values import json_values

from eventstore import ApplicationEvent, EventStore
from eventstore.errors import InvalidEvent
from eventstore.json_text import MAX_DEPTH, check_text, to_json

pytestmark = pytest.mark.shared_database


def nested(levels: int) -> Any:
    value: Any = []
    for level in range(levels - 1):
        value = [value] if level % 2 else {"k": value}
    return value


def same(given_value: Any, found: Any) -> bool:
    """Equal, and of the same types all the way down: 1 and 1.0 are different JSON for a caller."""
    if type(given_value) is not type(found):
        return False
    if isinstance(given_value, dict):
        return given_value.keys() == found.keys() and all(same(given_value[key], found[key]) for key in given_value)
    if isinstance(given_value, list):
        return len(given_value) == len(found) and all(map(same, given_value, found))
    return bool(given_value == found)


async def round_trip(store: EventStore, value: Any) -> Any:
    conversation = uuid4()
    await store.append(conversation, [ApplicationEvent("sent", value)])
    [event] = [event async for event in store.read(conversation)]
    assert event.data == ApplicationEvent("sent", value)
    return event.content


@given(json_values)
@example({"": "", " ": [], "a.b": {}, "ü": None})
@example(["\u2028", "\x7f", "\x01", "\ufeff", "\uffff", "\U0010ffff", '"\\/', "\\u0000", "\\ud800"])
async def test_any_value_comes_back_equal(store: EventStore, value: Any) -> None:
    assert same(value, await round_trip(store, value))


NUMBERS = [
    0.0, -0.0, 0.1, 1.0, 1e15, 1e16, -1e16, 1e17, 1e21, 1e22, 1e23, -1e23, 1e300, 1e308, math.nextafter(math.inf, 0),
    5e-324, -5e-324, 2.2250738585072014e-308, 1e-7, 123456789.123456789, 9007199254740993.0, 2.0**53, 2.0**63,
    0, -1, 2**53, 2**53 + 1, 2**63, 2**64, -(2**70), 10**100, 10**1000, 10**4299,
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: str(number)[:24])
async def test_numbers_keep_value_and_type(store: EventStore, number: float) -> None:
    assert same([number], await round_trip(store, [number]))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_so_that_it_reads_back_as_itself(number: float) -> None:
    text = to_json(number, "content").decode()
    assert float(text) == number
    assert "." in text or "e" in text


def test_the_database_gives_the_number_that_was_sent_not_a_rounder_one(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT (%s::jsonb)::numeric", (to_json(1e23, "content").decode(),)).fetchone()
    assert row == (Decimal(99999999999999991611392),)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a\0b", "content"),
        ({"text": "a\0"}, "content.text"),
        ({"parts": [{"text": "fine"}, {"text": "\0"}]}, "content.parts[1].text"),
        ({"a\0": 1}, "a key of content"),
        ([{"k": {"b\0": 1}}], "a key of content[0].k"),
        ("\ud800", "content"),
        (["ok", "\udfff"], "content[1]"),
        ({"\ud83d": 1}, "a key of content"),
        ({"large": 1e20, "text": "\0"}, "content.text"),
        ({"large": 1e20, "text": "\ud800"}, "content.text"),
        (math.nan, "content"),
        ({"score": [1.0, math.inf]}, "content.score[1]"),
        (-math.inf, "content"),
        ((1, 2), "content"),
        ({"pair": (1, 2)}, "content.pair"),
        ({"set": {1}}, "content.set"),
        ({"bytes": b"x"}, "content.bytes"),
        ({"money": Decimal("1.5")}, "content.money"),
        ({1: "one"}, "content"),
        ([{None: 1}], "content[0]"),
        ({"a": {True: 1}}, "content.a"),
        ({"digits": 10**5000}, "content.digits"),
        ({"object": object()}, "content.object"),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        to_json(value, "content")
    assert refused.value.path == path
    assert str(refused.value).startswith(f"{path}: ")


async def test_the_path_begins_with_the_event(store: EventStore) -> None:
    fine, bad = ApplicationEvent("sent", 1), ApplicationEvent("sent", {"parts": [{"text": "\0"}]})
    with pytest.raises(InvalidEvent) as refused:
        await store.append(uuid4(), [fine, bad])
    assert refused.value.path == "events[1].content.parts[0].text"
    assert [event async for event in store.read_log()] == []


async def test_documented_nesting_depth_is_accepted(store: EventStore) -> None:
    value = nested(MAX_DEPTH)
    assert await round_trip(store, value) == value


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 5000, 100_000])
def test_deeper_nesting_is_refused(levels: int) -> None:
    with pytest.raises(InvalidEvent, match=f"nested deeper than {MAX_DEPTH} levels"):
        to_json(nested(levels), "content")


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidEvent, match="nested deeper"):
        to_json(loop, "content")


def test_enumerations_are_stored_as_their_values() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    class Size(enum.IntEnum):
        LARGE = 3

    assert to_json([Colour.RED, Size.LARGE, 1e20], "content") == b'["red",3,100000000000000000000.0]'
    assert to_json([Colour.RED, Size.LARGE], "content") == b'["red",3]'


def test_texts_of_columns_are_checked_for_their_length() -> None:
    check_text("a" * 255, "actor", longest=255)
    with pytest.raises(InvalidEvent, match="256 characters long, the limit is 255"):
        check_text("a" * 256, "actor", longest=255)
