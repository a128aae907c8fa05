"""A poison event parks its conversation in one projection, and nothing else stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.scoped_queries import open_as
from support.waiting import until_async

from eventstore import EventStore, MessageAdded
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import EventStoreError, NotCaughtUp
from projections import (
    Projection,
    Reader,
    Worker,
    catch_up,
    read_parked,
    rebuild,
    retry_parked,
    select_projections,
    verify,
    wait_for,
)
from projections.apply import Applier

Sync = psycopg.Connection[tuple[object, ...]]
[MESSAGES] = select_projections(["messages"])
BOTH = select_projections(["conversations", "messages"])


def message(text: str = "x") -> MessageAdded:
    return MessageAdded(role="user", content=text)


@pytest.fixture
def owner(database_url: str) -> Iterator[Sync]:
    with open_as(database_url, "eventstore_owner") as connection:
        yield connection


@pytest.fixture
def poison_refused(owner: Sync) -> Iterator[None]:
    """The table of messages refuses one text, as if its projection failed on it."""
    owner.execute("ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (content <> 'poison')")
    return


def accept_poison(owner: Sync) -> None:
    owner.execute("ALTER TABLE messages DROP CONSTRAINT no_poison")


async def texts(store: EventStore, conversation: UUID) -> list[str]:
    return [row.content for row in await Reader(store).messages(conversation)]


async def test_a_poison_event_parks_its_conversation_and_nothing_else(
    store: EventStore, owner: Sync, poison_refused: None
) -> None:
    poisoned, healthy = uuid4(), uuid4()
    await store.append(poisoned, [message("first"), message("poison"), message("after")])
    await store.append(healthy, [message("fine")])
    await catch_up(store)
    assert await texts(store, poisoned) == ["first"]
    assert await texts(store, healthy) == ["fine"]
    assert (await Reader(store).conversation(poisoned)).message_count == 3  # another projection goes on
    [found] = await read_parked(store)
    assert (found.projection, found.conversation_id, found.version, found.event_type) == (
        "messages",
        poisoned,
        2,
        "message.added",
    )
    assert (found.sqlstate, found.tries) == ("23514", 1)
    assert "no_poison" in found.error
    await store.append(poisoned, [message("still more")])
    await store.append(healthy, [message("goes on")])
    await catch_up(store)
    assert await texts(store, poisoned) == ["first"]
    assert await texts(store, healthy) == ["fine", "goes on"]
    [found] = await verify(store, [MESSAGES])
    assert not found.differences  # parked events are not expected in the table


async def test_a_retry_applies_the_parked_events_in_order(store: EventStore, owner: Sync, poison_refused: None) -> None:
    poisoned = uuid4()
    await store.append(poisoned, [message("a"), message("poison"), message("b"), message("c")])
    await catch_up(store)
    failed = await retry_parked(store)
    assert (failed.applied, failed.parked) == (0, 1)
    [again] = await read_parked(store)
    assert again.tries == 2
    accept_poison(owner)
    done = await retry_parked(store)
    assert (done.applied, done.parked) == (1, 0)
    assert await texts(store, poisoned) == ["a", "poison", "b", "c"]
    assert await read_parked(store) == []
    assert not any(found.differences for found in await verify(store))


async def test_a_retry_that_fails_further_on_stays_parked_there(
    store: EventStore, owner: Sync, poison_refused: None
) -> None:
    poisoned = uuid4()
    await store.append(poisoned, [message("poison"), message("b"), message("venom"), message("c")])
    await catch_up(store)
    accept_poison(owner)
    owner.execute("ALTER TABLE messages ADD CONSTRAINT no_venom CHECK (content <> 'venom')")
    done = await retry_parked(store)
    assert (done.applied, done.parked) == (0, 1)
    assert await texts(store, poisoned) == ["poison", "b"]
    [found] = await read_parked(store)
    assert (found.version, found.tries) == (3, 2)


async def test_a_deferred_constraint_parks_too(store: EventStore, owner: Sync) -> None:
    owner.execute("CREATE TABLE seen_once (content text, UNIQUE (content) DEFERRABLE INITIALLY DEFERRED)")
    owner.execute("GRANT ALL ON seen_once TO eventstore_projector")
    text = f"{MESSAGES.text} INSERT INTO seen_once SELECT content ->> 'content' FROM batch;"
    once = replace(MESSAGES, name="once", text=text.replace("INSERT INTO messages", "INSERT INTO messages"))
    first, second = uuid4(), uuid4()
    await store.append(first, [message("same")])
    await store.append(second, [message("same")])
    await catch_up(store, [once])
    [found] = await read_parked(store, [once])
    assert (found.conversation_id, found.sqlstate) == (second, "23505")


async def test_an_error_that_is_not_of_the_data_parks_nothing(store: EventStore, owner: Sync) -> None:
    conversation = uuid4()
    result = await store.append(conversation, [message()])
    await catch_up(store)
    owner.execute("REVOKE INSERT ON messages FROM eventstore_projector")
    await store.append(conversation, [message("later")])
    task = asyncio.create_task(Worker(store).run())
    try:
        # A projection that cannot continue does not stop the others.
        await wait_for(store, result.position + 1, projections=select_projections(["conversations", "tasks"]))
        assert await read_parked(store) == []
        owner.execute("GRANT INSERT ON messages TO eventstore_projector")
        await wait_for(store, result.position + 1, timeout=30)
    finally:
        await cancel_and_wait([task])
    assert await texts(store, conversation) == ["x", "later"]


ALWAYS = ["21000", "22012", "23514", "54000", "54001", "38000", "P0001", "XX000", "0A000", "2F002"]
"""SQLSTATEs that park an event that fails alone."""
BESIDE_OTHERS = ["42P01", "42501", "42883", "57014", "53200", "53400"]
"""SQLSTATEs that park an event if others succeed."""
NEVER = ["40001", "40P01", "53100", "53300", "55P03", "08006", "25006", "58030", "57P01"]
"""SQLSTATEs of the server's own state."""


@pytest.fixture
def raising(owner: Sync) -> Projection:
    """A projection that fails on a text that is an SQLSTATE, with that."""
    owner.execute("CREATE TABLE echoes (tenant_id text, conversation_id uuid, version integer, content text)")
    owner.execute("GRANT ALL ON echoes TO eventstore_projector")
    owner.execute("""
        CREATE FUNCTION echo(input text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            IF input ~ '^[0-9A-Z]{5}$' THEN
                RAISE EXCEPTION 'poisoned' USING ERRCODE = input;
            END IF;
            RETURN input;
        END
        $$""")
    text = "INSERT INTO echoes SELECT tenant_id, conversation_id, version, echo(content ->> 'content') FROM batch;"
    return Projection("echoes", ("echoes",), text)


async def test_whatever_the_sqlstate_no_conversation_holds_up_another(store: EventStore, raising: Projection) -> None:
    for state in [*ALWAYS, *BESIDE_OTHERS]:
        poisoned, healthy = uuid4(), uuid4()
        await store.append(poisoned, [message("a"), message(state), message("c")], tenant=state)
        last = await store.append(healthy, [message("b")])
        await catch_up(store, [raising])
        [found] = await read_parked(store, [raising], tenant=state)
        assert (found.conversation_id, found.version, found.sqlstate) == (poisoned, 2, state)
        await wait_for(store, last.position, projections=[raising], timeout=0)
    rows = await store.connections.projector.fetch(
        "SELECT content, count(*) FROM echoes GROUP BY content ORDER BY content"
    )
    assert rows == [("a", len(ALWAYS + BESIDE_OTHERS)), ("b", len(ALWAYS + BESIDE_OTHERS))]


async def test_an_event_that_fails_alone_in_the_log_parks_too(store: EventStore, raising: Projection) -> None:
    for state in ALWAYS:
        await store.append(uuid4(), [message(state)])
        await catch_up(store, [raising])
    assert sorted(parked.sqlstate for parked in await read_parked(store, [raising])) == sorted(ALWAYS)


async def test_an_error_that_may_concern_all_events_parks_once_others_succeed(
    store: EventStore, raising: Projection
) -> None:
    for state in BESIDE_OTHERS:
        poisoned = uuid4()
        await store.append(poisoned, [message(state)])
        with pytest.raises(EventStoreError):
            await catch_up(store, [raising])
        assert not await read_parked(store, [raising], tenant="default")
        await store.append(uuid4(), [message("well")])
        await catch_up(store, [raising])
        assert [parked.conversation_id for parked in await read_parked(store, [raising])] == [poisoned]
        await store.connections.projector.fetch("DELETE FROM parked RETURNING 1")


async def test_the_state_of_the_server_parks_nothing(store: EventStore, raising: Projection) -> None:
    last = 0
    for state in NEVER:
        last = (await store.append(uuid4(), [message("fine"), message(state)])).position
        with pytest.raises(EventStoreError):
            await catch_up(store, [raising])
    assert await read_parked(store, [raising]) == []
    with pytest.raises(NotCaughtUp):
        await wait_for(store, last, projections=[raising], timeout=0)


@pytest.mark.slow
async def test_a_worker_parks_an_event_that_always_causes_a_server_error_if_others_succeed(
    store: EventStore, raising: Projection
) -> None:
    poisoned = {state: uuid4() for state in ("40001", "55P03", "53100", "25006")}
    for state, conversation in poisoned.items():
        await store.append(conversation, [message(state)])
        last = await store.append(uuid4(), [message("fine")])
    task = asyncio.create_task(Worker(store, [raising]).run())
    try:
        await wait_for(store, last.position, projections=[raising], timeout=60)
    finally:
        await cancel_and_wait([task])
    assert {parked.sqlstate: parked.conversation_id for parked in await read_parked(store, [raising])} == poisoned


async def test_a_failing_projection_stops_no_other_and_its_error_says_that_events_are_stored(
    store: EventStore, raising: Projection
) -> None:
    for state in ("53100", "40001", "XX000", "22P06"):
        last = (await store.append(uuid4(), [message(state), message("53100")])).position
        with pytest.raises(NotCaughtUp, match="projection echoes are behind the log: poisoned") as refused:
            await catch_up(store, [raising, MESSAGES])
        assert "What was appended is stored" in str(refused.value)
        assert "othing" not in str(refused.value)
        await wait_for(store, last, projections=[MESSAGES], timeout=0)


async def test_if_everything_fails_nothing_is_parked(store: EventStore, raising: Projection) -> None:
    for _ in range(3):
        await store.append(uuid4(), [message("XX000")])
    with pytest.raises(EventStoreError, match="poisoned"):
        await catch_up(store, [raising])
    assert await read_parked(store, [raising]) == []


async def test_a_rebuild_applies_parked_events_once_the_cause_is_removed(
    store: EventStore, owner: Sync, poison_refused: None
) -> None:
    poisoned = uuid4()
    await store.append(poisoned, [message("a"), message("poison"), message("b")])
    await catch_up(store)
    accept_poison(owner)
    await rebuild(store, [MESSAGES])
    assert await texts(store, poisoned) == ["a", "poison", "b"]
    assert await read_parked(store) == []


async def test_a_worker_continues_under_load_beside_many_poison_events(
    store: EventStore, owner: Sync, poison_refused: None
) -> None:
    conversations = [uuid4() for _ in range(20)]
    task = asyncio.create_task(Worker(store, batch_size=64).run())
    try:
        for turn in range(10):
            for number, conversation in enumerate(conversations):
                poison = number % 4 == 0 and turn == number // 4
                result = await store.append(conversation, [message("poison" if poison else str(turn))])
        await wait_for(store, result.position, timeout=60)

        async def all_parked() -> bool:
            return len(await read_parked(store)) == 5

        await until_async(all_parked, "five are parked")
    finally:
        await cancel_and_wait([task])
    for number, conversation in enumerate(conversations):
        applied = number // 4 if number % 4 == 0 else 10
        assert await texts(store, conversation) == [str(turn) for turn in range(applied)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30),
    st.integers(1, 7),
)
@examples(15)
async def test_the_table_holds_the_events_before_a_poison_event(
    store: EventStore, owner: Sync, poison_refused: None, script: Sequence[tuple[int, bool]], size: int
) -> None:
    conversations = [uuid4() for _ in range(4)]
    expected: dict[UUID, list[str]] = {conversation: [] for conversation in conversations}
    poisoned: set[UUID] = set()
    for number, (which, is_poison) in enumerate(script):
        conversation = conversations[which]
        text = "poison" if is_poison else str(number)
        await store.append(conversation, [message(text)])
        if is_poison:
            poisoned.add(conversation)
        if conversation not in poisoned:
            expected[conversation].append(text)
    applier = await Applier.open(store, size)
    try:
        for projection in BOTH:
            await applier.register(projection)
        for projection in BOTH:
            await applier.apply_all(projection)
    finally:
        await applier.close()
    assert {parked.conversation_id for parked in await read_parked(store)} & set(conversations) == poisoned
    assert {conversation: await texts(store, conversation) for conversation in conversations} == expected


def test_the_definition_hash_depends_on_the_text() -> None:
    assert Projection("messages", ("messages",), "SELECT 1").definition_hash != MESSAGES.definition_hash
