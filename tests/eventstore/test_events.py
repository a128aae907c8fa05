"""Events of the log are values that parse their JSON when it is first used."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.values import json_values

from eventstore import ApplicationEvent, Event, MessageAdded, Metadata, UnknownEvent
from eventstore.event_types import EventData, parse, parse_json
from eventstore.json_text import MAX_DEPTH, from_json

VALUES: dict[str, Any] = {
    "position": 5, "timestamp": datetime(2026, 1, 1, tzinfo=UTC), "version": 2, "schema_version": 1,
    "conversation_id": UUID(int=1), "id": UUID(int=2), "tenant_id": "default", "event_type": "message.added",
    "actor": "ana", "content": {"role": "user", "content": "hello"}, "raw_metadata": {"correlation_id": "c"},
    "salt": b"s" * 16, "digest": b"d" * 32,
}  # fmt: skip


def stored(value: Any) -> bytes:
    """Return a value as the server sends it."""
    return b"\x01" + json.dumps(value).encode()


def from_row(**changed: Any) -> Event:
    """Return an event as a reader makes it."""
    values = VALUES | changed
    return Event.from_row(tuple(stored(value) if isinstance(value, dict) else value for value in values.values()))


@pytest.fixture(params=[lambda: Event(**VALUES), from_row], ids=["made of values", "from a row"])
def event(request: pytest.FixtureRequest) -> Event:
    made: Event = request.param()
    return made


def test_an_event_has_all_fields(event: Event) -> None:
    assert {name: getattr(event, name) for name in VALUES} == VALUES
    assert [field.name for field in fields(Event)] == list(VALUES)
    assert asdict(event) == VALUES
    assert event.data == MessageAdded(role="user", content="hello")
    assert event.metadata == Metadata(correlation_id="c")
    assert repr(event).startswith("Event(position=5, timestamp=datetime.datetime(2026,")


def test_events_are_equal_if_all_fields_are(event: Event) -> None:
    assert event == Event(**VALUES) == from_row()
    assert event != replace(event, version=3)
    assert event != tuple(VALUES.values())
    assert replace(event, content={"role": "tool"}).content == {"role": "tool"}


def test_an_event_cannot_be_changed(event: Event) -> None:
    with pytest.raises(FrozenInstanceError):
        event.version = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del event.content  # type: ignore[misc]
    with pytest.raises(AttributeError):
        event.no_such_field  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("looked_at", [False, True])
def test_an_event_can_be_pickled(event: Event, looked_at: bool) -> None:
    if looked_at:
        assert (event.data, event.metadata, event.content) is not None
    for again in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):
        assert (again, again.data, again.metadata) == (event, event.data, event.metadata)


def test_typed_data_is_decoded_once(event: Event) -> None:
    assert event.content is event.content
    assert event.data is event.data
    assert event.metadata is event.metadata
    assert event.raw_metadata is event.raw_metadata


def test_most_events_have_no_metadata() -> None:
    event = from_row(raw_metadata={})
    assert (event.metadata, event.raw_metadata, event.occurred_at) == (Metadata(), {}, event.timestamp)


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?", fullmatch=True)


@given(numbers)
@example("0." + "0" * 400 + "1")
@example(
    "0." + "0" * 320 + "49406564584124654417656879286822137236505980143247644255856825006755072702087518652998363616"
)
@example("1" + "0" * 308 + ".0")
@example("1" + "0" * 400 + ".5")
@example("17976931348623158079372897140530341507993413271003782693617377898044496829276475094664901797758720709633028641"
         "66928879109465555478519404026306574886715058206819089020007083836762738548458177115317644757302700698555713669"
         "59622842914819860834936475292719074168444365510704342711559699508093042880.0")  # fmt: skip
@example("9007199254740993.00000000000000000000000000000000000001")
@example("1" * 4300)
def test_numbers_are_read_as_python_reads_them(text: str) -> None:
    expected, found = json.loads(text), from_json(text.encode())
    assert (type(found), found) == (type(expected), expected)


@given(json_values)
def test_values_are_read_as_python_reads_them(value: Any) -> None:
    text = json.dumps(value)
    assert repr(from_json(text.encode())) == repr(json.loads(text))


def test_the_deepest_permitted_nesting_is_read() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert from_json(text.encode()) == json.loads(text)
    assert from_row(content={"role": "user", "parts": json.loads(text)}).data.to_content()["parts"] == json.loads(text)


contents = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "tool", "robot"])},
        optional={
            "content": json_values | st.text("ab"),
            "parts": json_values | st.lists(json_values),
            "event_type": st.sampled_from(["message.added", "task.created"]),
            "metadata": json_values,
            "self": json_values,
        },
    ),
    st.fixed_dictionaries(
        {"task_id": st.uuids().map(str) | json_values, "status": st.sampled_from(["pending", "busy"])},
        optional={"description": json_values, "source_version": st.integers() | st.floats(0, 9), "newer": json_values},
    ),
)
TYPES = ["message.added", "task.created", "task.status_changed", "conversation.forked", "conversation.archived", "x"]


@given(content=contents, event_type=st.sampled_from([*TYPES, "task.x"]))
def test_the_fast_decoder_gives_the_same_typed_event_as_validation(content: Any, event_type: str) -> None:
    text = json.dumps(content).encode()
    expected, found = parse(event_type, 2, json.loads(text)), parse_json(event_type, 2, text)
    assert (type(found), found, repr(found)) == (type(expected), expected, repr(expected))
    assert found.model_extra == expected.model_extra
    assert same_content(found, expected)


def same_content(found: EventData, expected: EventData) -> bool:
    """Equal to the last member, of the same types."""
    return repr(found.to_content()) == repr(expected.to_content())


def test_events_of_other_kinds_are_typed_too() -> None:
    assert from_row(event_type="order.placed", content={"n": 1}).data == ApplicationEvent("order.placed", {"n": 1})
    unknown = from_row(event_type="message.retracted", schema_version=2, content={"n": 1}).data
    assert unknown == UnknownEvent(event_type="message.retracted", content={"n": 1}, schema_version=2)
