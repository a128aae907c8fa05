"""Every public call of the store raises a typed error for wrong types and values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from support.examples import examples
from support.raw import note

from eventstore import (
    Append,
    ApplicationEvent,
    EventStore,
    IdAssigner,
    MessageAdded,
    Metadata,
    NewEvent,
    Settings,
    SyncEventStore,
    UnknownEvent,
    conversation_uuid,
    message_from_sent,
)
from eventstore.errors import EventStoreError, InputError

pytestmark = pytest.mark.shared_database

EVENT = MessageAdded(role="user", content="x")
scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=300) | st.binary()
    | st.sampled_from(["\0", "\ud800", "NO_STREAM", "a" * 300, object(), int, Decimal(1), 1j, EVENT, NewEvent(EVENT)])
    | st.uuids() | st.uuids().map(str) | st.datetimes() | st.datetimes(timezones=st.just(UTC))
    | st.sampled_from([Metadata(), Append(uuid4(), [EVENT]), datetime.min.replace(tzinfo=timezone(timedelta(hours=9)))])
)  # fmt: skip
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)


async def first_of(events: AsyncIterator[Any]) -> None:
    """Reads one event, if there is one at once."""
    try:
        async with asyncio.timeout(0.005):
            async for _ in events:
                return
    except TimeoutError:
        pass


def calls(store: EventStore) -> dict[str, Callable[[Any], Any]]:
    """Every call, with one argument that is wrong."""
    conversation = uuid4()

    def append(**named: Any) -> Callable[[Any], Any]:
        [name] = named
        return lambda value: store.append(uuid4(), [EVENT], **{name: value})

    made: dict[str, Callable[[Any], Any]] = {
        "append(conversation)": lambda value: store.append(value, [EVENT]),
        "append(events)": lambda value: store.append(conversation, value),
        "append([event])": lambda value: store.append(conversation, [value]),
        "append_all": store.append_all,
        "append_all([append])": lambda value: store.append_all([value]),
        "Append(conversation)": lambda value: store.append_all([Append(value, [EVENT])]),
        "Append(events)": lambda value: store.append_all([Append(conversation, value)]),
        "Append(expected)": lambda value: store.append_all([Append(conversation, [EVENT], value)]),
        "connect": lambda value: connected(value),
        "caller": store.caller,
        "caller(user)": lambda value: store.caller(None, value),
        "read(conversation)": lambda value: first_of(store.read(value)),
        "wait": lambda value: waited(value),
        "ApplicationEvent": lambda value: ApplicationEvent(value, 1),
        "content": lambda value: store.append(conversation, [ApplicationEvent("x", value)]),
        "UnknownEvent": lambda value: UnknownEvent(event_type="x", schema_version=value),
        "conversation_uuid": lambda value: conversation_uuid("x", value),
        "conversation_uuid(tenant)": lambda value: conversation_uuid(value, "x"),
        "message_from_sent": message_from_sent,
        "IdAssigner": lambda value: IdAssigner("x", conversation, "message").assign(value),
        "EventStore": EventStore,
    }
    for name in ("expected", "actor", "tenant", "user"):
        made[f"append({name})"] = append(**{name: None})
    for name in ("actor", "tenant", "user"):
        made[f"append_all({name})"] = lambda value, name=name: store.append_all(
            [Append(uuid4(), [EVENT])], **{name: value}
        )
    for name in ("data", "id", "actor", "metadata"):
        made[f"NewEvent({name})"] = lambda value, name=name: store.append(
            uuid4(), [NewEvent(**({"data": EVENT} | {name: value}))]
        )
    for name in ("occurred_at", "correlation_id", "causation_id", "traceparent", "own"):
        made[f"Metadata({name})"] = lambda value, name=name: store.append(
            uuid4(), [NewEvent(EVENT, metadata=Metadata(**{name: value}))]
        )
    shared = ("after", "types", "actor", "tenant", "user")
    for name in (*shared, "until_version", "backwards", "limit", "since", "until"):
        made[f"read({name})"] = lambda value, name=name: first_of(store.read(conversation, **{name: value}))
    for name in (*shared, "until_position", "backwards", "limit", "since", "until", "all_tenants"):
        made[f"read_log({name})"] = lambda value, name=name: first_of(store.read_log(**{name: value}))
    for name in (*shared, "all_tenants"):
        made[f"subscribe({name})"] = lambda value, name=name: first_of(store.subscribe(**{name: value}))

    async def connected(value: Any) -> None:
        async with await store.connect(value):
            pass

    async def waited(value: Any) -> None:
        try:
            async with asyncio.timeout(0.005):
                await store.wait(value)
        except TimeoutError:
            pass

    return made


@examples(40, suppress_health_check=list(HealthCheck))
@given(value=values)
@example(value=2**70)
@example(value=EVENT)
@example(value=[])
@example(value=["\ud800"])
async def test_public_calls_raise_only_errors_of_the_store(store: EventStore, value: Any) -> None:
    for name, call in calls(store).items():
        try:
            outcome = call(value)
            if asyncio.iscoroutine(outcome):
                async with asyncio.timeout(20):
                    await outcome
        except EventStoreError:
            pass
        except Exception as error:
            raise AssertionError(f"{name} of {value!r}: {error!r}") from error
    # None of them hurt the store.
    await store.append(uuid4(), [note()])
    assert [event async for event in store.read_log(limit=1)]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ((event for event in [EVENT]), "expected a list of events, got a generator"),
        (EVENT, "expected a list of events, got a MessageAdded"),
        (NewEvent(EVENT), "expected a list of events, got a NewEvent"),
        (None, "expected a list of events, got a NoneType"),
        ([], "has no events: give at least one"),
        ([None], "is a NoneType: give an event"),
    ],
)
async def test_an_append_of_something_other_than_events_is_refused(store: EventStore, events: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        await store.append(uuid4(), events)


async def test_an_empty_append_twice(store: EventStore) -> None:
    conversation = uuid4()
    with pytest.raises(InputError, match="has no events"):
        await store.append_all([Append(conversation, []), Append(conversation, [])])
    with pytest.raises(InputError, match="occurs twice in one append"):
        await store.append_all([Append(conversation, [note()]), Append(conversation, [])])
    with pytest.raises(InputError, match="found a MessageAdded in it"):
        await store.append_all([EVENT])  # type: ignore[list-item]
    with pytest.raises(InputError, match="at least one conversation"):
        await store.append_all([])
    await store.append(conversation, [note()])


def test_a_synchronous_store_raises_the_same(settings: Settings) -> None:
    with SyncEventStore(settings) as store:
        for use in (
            lambda: store.append(uuid4(), EVENT),  # type: ignore[arg-type]
            lambda: store.append(5, [EVENT]),  # type: ignore[arg-type]
            lambda: store.append_all(5),  # type: ignore[arg-type]
            lambda: list(store.read(5)),  # type: ignore[arg-type]
            lambda: list(store.read_log(limit="x")),  # type: ignore[arg-type]
            lambda: next(store.subscribe(after=2**70)),
        ):
            with pytest.raises(InputError):
                use()
    store.close()
    with pytest.raises(InputError):
        SyncEventStore(5)  # type: ignore[arg-type]
