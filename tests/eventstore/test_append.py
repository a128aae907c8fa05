"""Appending: everything or nothing, once, where the writer expected it, and durably."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.raw import append_raw, append_raw_async, note

from eventstore import (
    ANY,
    EXISTS,
    NO_STREAM,
    Append,
    ConversationCreated,
    ConversationRewound,
    ConversationShared,
    EventStore,
    ExpectedVersion,
    MessageAdded,
    Metadata,
    NewEvent,
    Settings,
    UnknownEvent,
    conversation_uuid,
)
from eventstore.append import MAX_CONVERSATIONS, MAX_EVENTS
from eventstore.database.connection import AUDITOR
from eventstore.errors import (
    DeadlockDetected,
    EventIdConflict,
    EventTooLarge,
    Forbidden,
    InputError,
    InvalidEvent,
    InvalidId,
    IsolationError,
    WrongExpectedVersion,
    translated,
)

pytestmark = pytest.mark.shared_database


async def contents(store: EventStore, conversation: UUID, tenant: str | None = None) -> list[Any]:
    return [event.content async for event in store.read(conversation, tenant=tenant)]


async def test_an_append_returns_the_position_and_version_of_each_event(store: EventStore) -> None:
    conversation, before = uuid4(), datetime.now(UTC)
    events = [NewEvent(note(content)) for content in "abc"]
    result = await store.append(conversation, events)
    assert [one.event_id for one in result.events] == [event.id for event in events]
    assert [one.version for one in result.events] == [1, 2, 3]
    positions = [one.position for one in result.events]
    assert positions == sorted(set(positions))
    assert {one.conversation_id for one in result.events} == {conversation}
    assert all(one.is_new for one in result.events)
    assert all(before <= one.timestamp <= datetime.now(UTC) for one in result.events)
    assert (result.position, result.version) == (positions[-1], 3)
    found = [event async for event in store.read(conversation)]
    assert [(e.id, e.position, e.version, e.timestamp) for e in found] == [
        (one.event_id, one.position, one.version, one.timestamp) for one in result.events
    ]


@pytest.mark.own_database
async def test_the_first_position_of_a_fresh_log_is_one(store: EventStore) -> None:
    assert (await store.append(uuid4(), [note()])).position == 1
    assert [event.position async for event in store.read_log()] == [1]


async def test_an_event_is_stored_completely(store: EventStore) -> None:
    conversation = uuid4()
    metadata = Metadata(
        occurred_at=datetime(2020, 2, 29, 12, tzinfo=UTC),
        correlation_id="c",
        causation_id="d",
        traceparent="00-t",
        own=[1],
    )
    given = NewEvent(MessageAdded(role="user", content="olá"), actor="ana", metadata=metadata)
    await store.append(conversation, [given], tenant="acme")
    [event] = [event async for event in store.read(conversation, tenant="acme")]
    assert (event.id, event.data, event.actor, event.metadata) == (given.id, given.data, "ana", metadata)
    assert (event.tenant_id, event.conversation_id, event.schema_version) == ("acme", conversation, 1)
    assert event.occurred_at == metadata.occurred_at


async def test_the_actor_of_an_append_applies_to_events_without_one(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, [note(), NewEvent(note(), actor="bob")], actor="ana")
    assert [event.actor async for event in store.read(conversation)] == ["ana", "bob"]


async def test_a_conversation_may_be_named_by_text(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(str(conversation), [note(1)])
    assert await contents(store, conversation) == [1]


@pytest.mark.parametrize(
    ("there", "expected", "fits"),
    [
        (0, NO_STREAM, True), (2, NO_STREAM, False),
        (0, 0, True), (2, 0, False),
        (0, EXISTS, False), (2, EXISTS, True),
        (0, ANY, True), (2, ANY, True),
        (0, 1, False), (2, 1, False), (2, 2, True), (2, 3, False), (2, 2**31 - 1, False),
    ],
)  # fmt: skip
async def test_an_append_succeeds_only_at_the_expected_version(
    store: EventStore, there: int, expected: ExpectedVersion, fits: bool
) -> None:
    conversation = uuid4()
    if there:
        await store.append(conversation, [note(n) for n in range(there)])
    if fits:
        assert (await store.append(conversation, [note("new")], expected=expected)).version == there + 1
        return
    with pytest.raises(WrongExpectedVersion, match=f"is at version {there}, not at {expected}") as refused:
        await store.append(conversation, [note("new")], expected=expected)
    assert (refused.value.conversation_id, refused.value.expected, refused.value.actual) == (
        conversation, expected, there,
    )  # fmt: skip
    assert await contents(store, conversation) == list(range(there))


@pytest.mark.parametrize("expected", [-1, -2, 2**31, "no_stream", "", None, 1.0, True, UUID(int=0)])
async def test_an_invalid_expected_version_is_refused(store: EventStore, expected: Any) -> None:
    with pytest.raises(InputError, match="expected version"):
        await store.append(uuid4(), [note()], expected=expected)


async def test_one_of_several_writers_that_expect_the_same_version_succeeds(store: EventStore) -> None:
    conversation = uuid4()
    outcomes = await asyncio.gather(
        *(store.append(conversation, [note(n)], expected=NO_STREAM) for n in range(20)), return_exceptions=True
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, WrongExpectedVersion) for outcome in outcomes) == 19
    assert len(await contents(store, conversation)) == 1


async def test_writers_to_one_conversation_leave_no_gap(store: EventStore) -> None:
    conversation = uuid4()
    await asyncio.gather(*(store.append(conversation, [note(n), note(n)]) for n in range(30)))
    events = [event async for event in store.read(conversation)]
    assert [event.version for event in events] == list(range(1, 61))
    assert [event.position for event in events] == sorted(event.position for event in events)
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)
    assert all(one.content == other.content for one, other in zip(events[::2], events[1::2], strict=True))


async def test_repeating_an_append_is_harmless(store: EventStore) -> None:
    conversation = uuid4()
    events = [NewEvent(note(1)), NewEvent(note(2))]
    first = await store.append(conversation, events, expected=NO_STREAM)
    again = await store.append(conversation, events, expected=NO_STREAM)
    assert [one.is_new for one in again.events] == [False, False]
    assert [(one.position, one.version, one.timestamp) for one in again.events] == [
        (one.position, one.version, one.timestamp) for one in first.events
    ]
    assert await contents(store, conversation) == [1, 2]


async def test_an_append_that_is_partly_stored_adds_the_rest(store: EventStore) -> None:
    conversation = uuid4()
    one, two, three, four = (NewEvent(note(n)) for n in (1, 2, 3, 4))
    await store.append(conversation, [one, three])
    result = await store.append(conversation, [four, three, two, one])
    assert [(r.is_new, r.version) for r in result.events] == [(True, 3), (False, 2), (True, 4), (False, 1)]
    assert await contents(store, conversation) == [1, 3, 4, 2]


async def test_an_append_that_is_partly_stored_is_checked_for_its_version(store: EventStore) -> None:
    conversation = uuid4()
    one, two = NewEvent(note(1)), NewEvent(note(2))
    await store.append(conversation, [one])
    with pytest.raises(WrongExpectedVersion):
        await store.append(conversation, [one, two], expected=NO_STREAM)
    assert (await store.append(conversation, [one, two], expected=1)).version == 2


KNOWN = NewEvent(
    UnknownEvent(event_type="noted", content={"a": 1}, schema_version=1),
    UUID(int=7),
    "ana",
    Metadata(
        occurred_at=datetime(2020, 1, 1, tzinfo=UTC),
        correlation_id="c",
        causation_id="k",
        traceparent="t",
        own={"x": [1]},
    ),
)
OTHERS = {
    "content": replace(KNOWN, data=note({"a": 2})),
    "event_type": replace(KNOWN, data=note({"a": 1}, "other")),
    "schema_version": replace(KNOWN, data=UnknownEvent(event_type="noted", content={"a": 1}, schema_version=2)),
    "actor": replace(KNOWN, actor="bob"),
    "content, metadata.own": NewEvent(
        note({"a": 3}), KNOWN.id, "ana", KNOWN.metadata.model_copy(update={"own": {"x": [2]}})
    ),
    "metadata.occurred_at": replace(
        KNOWN, metadata=KNOWN.metadata.model_copy(update={"occurred_at": datetime(2025, 1, 1, tzinfo=UTC)})
    ),
    "metadata.correlation_id": replace(KNOWN, metadata=KNOWN.metadata.model_copy(update={"correlation_id": None})),
    "metadata.causation_id": replace(KNOWN, metadata=KNOWN.metadata.model_copy(update={"causation_id": "other"})),
    "metadata.further": replace(KNOWN, metadata=Metadata(**KNOWN.metadata.to_content(), further=1)),
}


@pytest.mark.parametrize("user", [None, "ana"])
@pytest.mark.parametrize("differences", OTHERS)
async def test_another_event_under_the_same_id_is_refused(
    store: EventStore, differences: str, user: str | None
) -> None:
    conversation, other = uuid4(), OTHERS[differences]
    await store.append(conversation, [KNOWN], user=user)
    for events in ([other], [note("before"), other]):
        with pytest.raises(EventIdConflict, match="already holds another event under the id") as refused:
            await store.append(conversation, events, user=user)
        assert (refused.value.conversation_id, refused.value.event_id) == (conversation, UUID(int=7))
        assert refused.value.differences == differences
        assert f"they differ in {differences}" in str(refused.value)
    assert await contents(store, conversation) == [{"a": 1}]
    for events in ([KNOWN], [KNOWN, note("after")]):
        assert not (await store.append(conversation, events, user=user)).events[0].is_new


@pytest.mark.parametrize("traceparent", ["other", None])
async def test_an_event_that_another_request_repeats_is_the_same_event(
    store: EventStore, traceparent: str | None
) -> None:
    """A trace context describes the request that brought the event; what is stored is that of the first one."""
    conversation = uuid4()
    await store.append(conversation, [KNOWN])
    repeated = replace(KNOWN, metadata=KNOWN.metadata.model_copy(update={"traceparent": traceparent}))
    for events in ([repeated], [repeated, note("after")]):
        assert not (await store.append(conversation, events)).events[0].is_new
    [first, _] = [event async for event in store.read(conversation)]
    assert first.metadata == KNOWN.metadata


async def test_an_event_that_another_user_repeats_is_the_same_event(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, [KNOWN], user="ana")
    await store.append(conversation, [ConversationShared(user="bob", access="write")], user="ana")
    for user in ("bob", None):
        for events in ([KNOWN], [KNOWN, note("after")]):
            assert not (await store.append(conversation, events, user=user)).events[0].is_new
    named = replace(KNOWN, metadata=Metadata(**KNOWN.metadata.to_content(), **{"eventstore.owner": "eve"}))
    with pytest.raises(EventIdConflict) as refused:
        await store.append(conversation, [named])
    assert refused.value.differences == "metadata.eventstore.owner"


async def test_an_event_id_is_unique_in_its_conversation_and_tenant_only(store: EventStore) -> None:
    one, other = uuid4(), uuid4()
    for conversation, tenant in ((one, "a"), (other, "a"), (one, "b")):
        result = await store.append(conversation, [NewEvent(note(str(tenant)), UUID(int=7))], tenant=tenant)
        assert result.events[0].is_new


async def test_two_tenants_may_use_the_same_conversation_id(store: EventStore) -> None:
    conversation = uuid4()
    before = (await store.append(uuid4(), [note()], tenant="another")).position
    await store.append(conversation, [note("ours"), note("ours")], tenant="us")
    result = await store.append(conversation, [note("theirs")], tenant="them", expected=NO_STREAM)
    assert result.version == 1
    assert await contents(store, conversation, "us") == ["ours", "ours"]
    assert await contents(store, conversation, "them") == ["theirs"]
    assert await contents(store, conversation) == []
    assert [event.content async for event in store.read_log(tenant="them")] == ["theirs"]
    assert [event.content async for event in store.read_log(after=before, all_tenants=True)] == [
        "ours",
        "ours",
        "theirs",
    ]


async def test_an_append_to_several_conversations_is_atomic(store: EventStore) -> None:
    a, b, c = uuid4(), uuid4(), uuid4()
    result = await store.append_all(
        [Append(a, [note(1), note(2)], NO_STREAM), Append(b, [note(3)]), Append(c, [note(4)])]
    )
    assert [(one.conversation_id, one.version) for one in result.events] == [(a, 1), (a, 2), (b, 1), (c, 1)]
    assert [event.content async for event in store.read_log()] == [1, 2, 3, 4]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("wrong", ["version", "id"])
async def test_one_conflict_refuses_the_whole_append(store: EventStore, place: int, wrong: str) -> None:
    conversations = [uuid4() for _ in range(3)]
    taken = NewEvent(note("there"))
    await store.append(conversations[place], [taken])
    bad = (
        Append(conversations[place], [note("new")], NO_STREAM)
        if wrong == "version"
        else Append(conversations[place], [NewEvent(note("new"), taken.id)])
    )
    appends = [Append(conversation, [note("new")]) for conversation in conversations]
    appends[place] = bad
    with pytest.raises((WrongExpectedVersion, EventIdConflict)) as refused:
        await store.append_all(appends)
    assert refused.value.conversation_id == conversations[place]
    assert [event.content async for event in store.read_log()] == ["there"]


async def test_a_hundred_conversations_and_ten_thousand_events_fit_into_one_append(store: EventStore) -> None:
    each = MAX_EVENTS // MAX_CONVERSATIONS
    result = await store.append_all(Append(uuid4(), [note(n) for n in range(each)]) for _ in range(MAX_CONVERSATIONS))
    assert len(result.events) == MAX_EVENTS
    assert [event.position async for event in store.read_log()] == [one.position for one in result.events]


@pytest.mark.parametrize(
    ("appends", "complaint"),
    [
        ([], "needs at least one conversation"),
        ([Append(UUID(int=1), [])], "has no events"),
        ([Append(UUID(int=1), [note()]), Append(str(UUID(int=1)), [note()])], "occurs twice in one append"),
        ([Append(UUID(int=1), [NewEvent(note(), UUID(int=2)), NewEvent(note(), UUID(int=2))])], "occurs twice"),
        ([Append(UUID(int=n), [note()]) for n in range(MAX_CONVERSATIONS + 1)], "the limit is 100, split it"),
        ([Append(UUID(int=1), [note()] * (MAX_EVENTS + 1))], "the limit is 10000, split it"),
        ([Append("no uuid", [note()])], "conversation_id: 'no uuid' is not a UUID"),
        ([Append(UUID(int=1), ["text"])], r"events\[0\]: is a str: give an event"),  # type: ignore[list-item]
        ([Append(UUID(int=1), [{"role": "user"}])], "is a dict"),  # type: ignore[list-item]
        ([Append(UUID(int=1), [NewEvent(note(), actor="a" * 256)])], "actor: is 256 characters long"),
        ([Append(UUID(int=1), [NewEvent(note(), actor="\0")])], r"events\[0\].actor: has a NUL"),
        ([Append(UUID(int=1), [NewEvent(note(), metadata=Metadata(correlation_id="\0"))])], "metadata.correlation_id"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
async def test_an_invalid_append_is_refused(store: EventStore, appends: list[Append], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        await store.append_all(appends)
    assert [event async for event in store.read_log()] == []


@pytest.mark.parametrize(
    "values",
    [
        {"data": "text"},
        {"data": {"role": "user"}},
        {"id": "not a uuid"},
        {"id": None},
        {"actor": None},
        {"metadata": {"correlation_id": "x"}},
        {"metadata": None},
    ],
    ids=str,
)
async def test_a_new_event_of_wrong_types_is_refused_by_name(store: EventStore, values: dict[str, Any]) -> None:
    with pytest.raises((InvalidEvent, InvalidId)) as refused:
        await store.append(uuid4(), [NewEvent(**({"data": note()} | values))])
    assert next(iter(values)) in str(refused.value)


@pytest.mark.parametrize("tenant", ["a" * 256, "\0", "\ud800", 5])
async def test_a_tenant_that_cannot_be_stored_is_refused(store: EventStore, tenant: Any) -> None:
    with pytest.raises(InvalidEvent, match="tenant"):
        await store.append(uuid4(), [note()], tenant=tenant)


@pytest.mark.slow
async def test_content_up_to_the_limit_is_stored(store: EventStore) -> None:
    limit = store.settings.max_content_bytes
    await store.append(uuid4(), [note("a" * (limit - 2)), note("ü" * ((limit - 2) // 2))])
    for text in ("a" * (limit - 1), "ü" * (limit // 2)):
        with pytest.raises(EventTooLarge, match="EVENTSTORE_MAX_CONTENT_BYTES") as refused:
            await store.append(uuid4(), [note(), note(text)])
        assert (refused.value.size, refused.value.limit) == (len(text.encode()) + 2, limit)
        assert "events[1].content" in str(refused.value)
    with pytest.raises(EventTooLarge, match=r"events\[0\].metadata"):
        await store.append(uuid4(), [NewEvent(note(), metadata=Metadata(own="a" * limit))])


async def test_the_limit_can_be_set(clean_environment: None, database_url: str) -> None:
    async with EventStore(Settings(database_url=database_url, max_content_bytes=1024)) as store:
        with pytest.raises(EventTooLarge, match="the limit is 1,024"):
            await store.append(uuid4(), [ConversationCreated(metadata={"a": "b" * 1024})])


@pytest.mark.parametrize("level", ["on", "off", "local", "remote_write"])
def test_an_acknowledged_event_is_durable_whatever_the_session_sets(database_url: str, level: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SET synchronous_commit = {level}")
        with connection.transaction():
            append_raw(connection, 1)
            during = connection.execute("SHOW synchronous_commit").fetchone()
        assert during == ("on" if level == "off" else level,)
        assert connection.execute("SHOW synchronous_commit").fetchone() == (level,)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_old_snapshots_are_refused_for_appending_and_reading(store: EventStore, level: str) -> None:
    async with await store.connect() as writer, await store.connect(AUDITOR) as reader:
        for connection in (writer, reader):
            await connection.execute(f"SET default_transaction_isolation = '{level}'")
        with pytest.raises(IsolationError, match=f"{level.upper()} transaction.*READ COMMITTED"), translated():
            await append_raw_async(writer, 1)
        with pytest.raises(IsolationError), translated():
            await reader.execute("SELECT log_horizon()")


@pytest.mark.slow
async def test_transactions_that_wait_for_each_other_end_with_a_typed_error(store: EventStore) -> None:
    a, b = uuid4(), uuid4()
    async with await store.connect() as one, await store.connect() as other:
        for connection, conversation in ((one, a), (other, b)):
            await connection.execute("BEGIN")
            await append_raw_async(connection, 1, conversation=conversation, tenant=store.tenant)

        async def cross(connection: psycopg.AsyncConnection[Any], conversation: UUID) -> None:
            with translated():
                await append_raw_async(connection, 2, conversation=conversation, tenant=store.tenant)
            await connection.execute("COMMIT")

        outcomes = await asyncio.gather(cross(one, b), cross(other, a), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [DeadlockDetected]
    assert len([event async for event in store.read_log()]) == 2


async def test_appends_to_the_same_conversations_in_any_order_do_not_deadlock(store: EventStore) -> None:
    conversations = [uuid4() for _ in range(6)]
    await asyncio.gather(
        *(store.append_all([Append(c, [note(n)]) for c in conversations[:: 1 if n % 2 else -1]]) for n in range(40))
    )
    for conversation in conversations:
        assert sorted(await contents(store, conversation)) == list(range(40))


async def test_a_closed_store_refuses_appends(settings: Settings) -> None:
    store = EventStore(settings)
    with pytest.raises(InputError, match="not open"):
        await store.append(uuid4(), [note()])
    async with store:
        await store.append(uuid4(), [note()])
    with pytest.raises(InputError, match="not open"):
        await store.append(uuid4(), [note()])


TRIP = ConversationCreated(name="Trip", metadata={"language": "pt"})


async def test_an_append_begins_a_new_conversation_with_its_name_and_given_id(store: EventStore) -> None:
    conversation = conversation_uuid(store.tenant, "trip/7 é%")
    for number in (2, 3):
        result = await store.append("trip/7 é%", [note(number)], begin=TRIP, actor="ana", user="ana")
        [appended] = result.events
        assert (appended.conversation_id, appended.version, appended.is_new) == (conversation, number, True)
    begun, *notes = [event async for event in store.read(conversation, user="ana")]
    assert begun.data == TRIP.model_copy(update={"given_id": "trip/7 é%"})
    assert [event.actor for event in (begun, *notes)] == ["ana"] * 3
    assert [event.content for event in notes] == [2, 3]


async def test_one_of_many_concurrent_appends_begins_the_conversation(store: EventStore) -> None:
    results = await asyncio.gather(*(store.append("trip", [note(n), note(n)], begin=TRIP) for n in range(16)))
    events = [event async for event in store.read(conversation_uuid(store.tenant, "trip"))]
    assert [event.event_type for event in events].count("conversation.created") == 1
    assert events[0].event_type == "conversation.created"
    assert sorted(event.content for event in events[1:]) == sorted([*range(16), *range(16)])
    assert {appended.event_id for result in results for appended in result.events} == {event.id for event in events[1:]}


async def test_an_append_that_begins_a_conversation_can_be_repeated(store: EventStore) -> None:
    events = [NewEvent(note(1)), NewEvent(note(2))]
    begin = NewEvent(TRIP, actor="ana")
    first, *others = await asyncio.gather(*(store.append("trip", events, begin=begin) for _ in range(8)))
    for other in others:
        assert [replace(one, is_new=True) for one in other.events] == [
            replace(one, is_new=True) for one in first.events
        ]
    assert len(await contents(store, conversation_uuid(store.tenant, "trip"))) == 3


async def test_what_may_not_be_appended_begins_nothing(store: EventStore) -> None:
    await store.append("anas", [note()], begin=TRIP, user="ana")
    with pytest.raises(Forbidden):
        await store.append("anas", [note()], begin=TRIP, user="bob")
    await store.append("anas", [note("theirs")], begin=TRIP, tenant="them", user="bob")
    for expected in (NO_STREAM, 0):
        with pytest.raises(WrongExpectedVersion):
            await store.append("anas", [note()], begin=TRIP, expected=expected)  # type: ignore[arg-type]
    for expected in (1, EXISTS):
        with pytest.raises(InputError, match="leave out expected or begin"):
            await store.append("anas", [note()], begin=TRIP, expected=expected)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected version 'never'"):
        await store.append("anas", [note()], begin=TRIP, expected="never")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"begin: .* is not a ConversationCreated"):
        await store.append("new", [note()], begin=NewEvent(note()))
    with pytest.raises(InvalidEvent, match=r"^begin\.content\.metadata\.a: has a NUL"):
        await store.append("new", [note()], begin=ConversationCreated(metadata={"a": "\0"}))
    with pytest.raises(InvalidEvent, match=r"^events\[1\]\.content: has a NUL"):
        await store.append("new", [note(), note("\0")], begin=TRIP, expected=NO_STREAM)
    with pytest.raises(InvalidEvent, match=r"^begin\.content\.given_id: .x. is the name"):
        await store.append("new", [note()], begin=ConversationCreated(given_id="x"))
    with pytest.raises(InvalidId):
        await store.append(7, [note()], begin=TRIP)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no events"):
        await store.append("new", [], begin=TRIP)
    assert await contents(store, conversation_uuid(store.tenant, "new")) == []
    assert await store.append(uuid4(), [note()], begin=TRIP, expected=NO_STREAM)


async def test_members_that_a_type_does_not_have_are_stored_whatever_they_are(store: EventStore) -> None:
    """This includes members of another type of the same group."""
    rewound = ConversationRewound.model_validate({"to_version": 0, "name": None, "metadata": 1})
    conversation = uuid4()
    await store.append(conversation, [rewound])
    assert await contents(store, conversation) == [{"to_version": 0, "name": None, "metadata": 1}]
