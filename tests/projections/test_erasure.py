"""Erased content is gone from the log and from everything that is made of it; the rest is unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.folding import fold, stored
from support.histories import CONVERSATIONS, new_events
from support.scoped_queries import open_as, open_scoped
from support.waiting import until_async

from eventstore import (
    Append,
    ApplicationEvent,
    ConversationCreated,
    ConversationErased,
    ConversationRenamed,
    ConversationShared,
    ConversationUnshared,
    Erasure,
    Event,
    EventData,
    EventErased,
    EventStore,
    MessageAdded,
    MessageAnswered,
    Metadata,
    NewEvent,
    Settings,
    TaskArtifactAdded,
    TaskCreated,
    TaskDescribed,
    TaskStatusChanged,
)
from eventstore.errors import ConnectionLost, Forbidden, InputError, NotFound, PermissionDenied
from projections import (
    PROJECTIONS,
    ConversationCache,
    Projection,
    Reader,
    catch_up,
    read_parked,
    rebuild,
    retry_parked,
    verify,
)
from projections.custom_projections import projection
from projections.verify import verify_members

SECRET = "pomegranate"
TASK = uuid4()
MARK = {"eventstore.erased": True}
RECEIPTS = (ConversationErased, EventErased)
REFOLDING = "wait_event_type = 'Lock' AND query LIKE '%refold_conversation%'"


def secrets() -> list[EventData | NewEvent]:
    """Return an event of each kind, with a secret wherever an event has room for it."""
    extra = {SECRET: SECRET}
    return [
        ConversationCreated(name=SECRET, metadata=extra),
        ConversationRenamed(name=f"again {SECRET}"),
        MessageAdded(role="user", content=SECRET, extra=extra, metadata=extra, awaits_answer=True),
        MessageAdded(role="assistant", parts=[{"text": SECRET}], given_id=f"id of {SECRET}"),
        TaskCreated(task_id=TASK, description=SECRET, given_id=SECRET, extra=extra, metadata=extra),
        TaskStatusChanged(task_id=TASK, status="completed", message={"text": SECRET}, extra=extra, update=extra),
        TaskDescribed(task_id=TASK, description=SECRET, history=[{"text": SECRET}]),
        TaskArtifactAdded(task_id=TASK, artifact_id=SECRET, name=SECRET, parts=[{"text": SECRET}]),
        ApplicationEvent("noted", {SECRET: SECRET}),
        NewEvent(
            MessageAdded(role="user", content="x"),
            actor=SECRET,
            metadata=Metadata(correlation_id=SECRET, causation_id=str(uuid4()), **extra),
        ),
    ]


async def differences(store: EventStore) -> list[Any]:
    """Return the rows of read tables, and the members, that differ from the log."""
    return [row for found in (*await verify(store), await verify_members(store)) for row in found.rows]


async def events_of(store: EventStore, conversation: UUID) -> list[Event]:
    return [event async for event in store.read(conversation)]


def everything(url: str) -> str:
    """All that the tables of the database hold, as text."""
    texts = []
    with open_as(url, "eventstore_projector") as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname LIKE 'public%' AND has_table_privilege(c.oid, 'SELECT')"
        ).fetchall()
        for (table,) in tables:
            texts += [row for (row,) in connection.execute(f"SELECT t::text FROM {table} t").fetchall()]  # type: ignore[arg-type]
    return "\n".join(texts)


async def test_an_erased_conversation_is_gone_from_every_table(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    await store.append(conversation, secrets(), actor=SECRET)
    await catch_up(store)
    await rebuild(store)  # the tables of before are kept, too
    assert SECRET in everything(database_url)
    before = await events_of(store, conversation)
    erasure = await store.erase(conversation, reason="asked to be forgotten", actor="clerk")
    assert SECRET not in everything(database_url)
    assert (erasure.conversation_id, erasure.events, erasure.not_refolded) == (conversation, 10, {})

    *after, receipt = await events_of(store, conversation)
    kept = ("position", "timestamp", "version", "schema_version", "conversation_id", "id", "event_type", "digest")
    assert [[getattr(e, name) for name in kept] for e in after] == [[getattr(e, name) for name in kept] for e in before]
    assert [(event.salt, event.actor, event.is_erased) for event in after] == [(None, "", True)] * 10
    assert after[-1].raw_metadata == {"causation_id": before[-1].raw_metadata["causation_id"]}
    assert isinstance(receipt.data, ConversationErased)
    assert (receipt.actor, receipt.data.reason, receipt.data.versions) == ("clerk", "asked to be forgotten", [[1, 10]])
    assert erasure.receipt is not None
    assert (erasure.receipt.event_id, erasure.receipt.version) == (receipt.id, 11)
    await catch_up(store)
    assert await differences(store) == []


async def test_what_remains_keeps_the_structure(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, secrets())
    await catch_up(store)
    await store.erase(conversation)
    reader = Reader(store)
    row = await reader.conversation(conversation)
    assert (row.name, row.message_count, row.version, row.metadata) == ("", 3, 10, MARK)
    messages = await reader.messages(conversation)
    assert [(m.role, m.content, m.metadata, m.status) for m in messages] == [
        ("user", "", MARK, "pending"), ("assistant", "", MARK, None), ("user", "", MARK, None),
    ]  # fmt: skip
    [task] = await reader.tasks(conversation)
    assert (task.id, task.status, task.description, task.metadata) == (TASK, "completed", "", MARK)
    result = await store.append(conversation, [MessageAdded(role="user", content="it goes on")])
    await catch_up(store)
    assert result.version == 12
    assert [m.content for m in await reader.messages(conversation)][-1] == "it goes on"


async def test_one_event_is_erased_and_the_others_are_as_they_were(store: EventStore) -> None:
    conversation = uuid4()
    texts = [MessageAdded(role="user", content=text) for text in ("one", SECRET, "three")]
    place = (await store.append(conversation, texts)).events[1]
    await catch_up(store)
    erasure = await store.erase(conversation, [place.event_id])
    assert [m.content for m in await Reader(store).messages(conversation)] == ["one", "", "three"]
    receipt = (await events_of(store, conversation))[-1].data
    assert isinstance(receipt, EventErased)
    assert (erasure.events, receipt.versions) == (1, [[2, 2]])
    again = await store.erase(conversation, [place.event_id])
    assert (again.events, again.receipt) == (0, None)
    whole = await store.erase(conversation)
    assert whole.events == 2
    assert (await store.erase(conversation)).events == 0


async def test_a_description_that_is_erased_shows_no_earlier_one(store: EventStore) -> None:
    conversation = uuid4()
    described = NewEvent(TaskDescribed(task_id=TASK, description=SECRET, metadata={"a": 1}))
    renamed = NewEvent(ConversationRenamed(name=SECRET))
    await store.append(
        conversation,
        [ConversationCreated(name="first"), TaskCreated(task_id=TASK, description="first"), described, renamed],
    )
    await catch_up(store)
    await store.erase(conversation, [described.id, renamed.id])
    [task] = await Reader(store).tasks(conversation)
    assert (task.description, task.metadata) == ("", MARK)
    assert (await Reader(store).conversation(conversation)).name == ""


async def test_events_that_no_projection_has_applied_are_erased_too(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    await catch_up(store)
    await store.append(conversation, secrets())
    await store.erase(conversation)
    await catch_up(store)
    assert SECRET not in everything(database_url)
    assert (await Reader(store).conversation(conversation)).version == 11
    assert await differences(store) == []


async def test_a_dry_run_counts_rows_by_table_and_changes_nothing(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, secrets())
    await catch_up(store)
    planned = await store.erase(conversation, dry_run=True)
    expected = {"events": 10, "conversations": 1, "messages": 3, "tasks": 1, "task_artifacts": 1, "pending_messages": 1}
    assert planned.rows.items() >= expected.items()
    assert (planned.events, planned.receipt) == (10, None)
    assert len(await events_of(store, conversation)) == 10
    assert not any(event.is_erased for event in await events_of(store, conversation))
    place = (await events_of(store, conversation))[2]
    assert (await store.erase(conversation, [place.id], dry_run=True)).rows.items() >= {
        "events": 1,
        "messages": 1,
    }.items()


# A model: erasures among appends and batches

steps = st.one_of(
    st.tuples(
        st.just("append"),
        st.dictionaries(st.sampled_from(CONVERSATIONS), st.lists(new_events, min_size=1, max_size=4), min_size=1),
    ),
    st.tuples(st.just("erase"), st.tuples(st.sampled_from(CONVERSATIONS), st.lists(st.integers(1, 8), max_size=3))),
    st.tuples(st.just("catch up"), st.none()),
)


@pytest.mark.usefixtures("events_after_deletions")
@given(st.lists(steps, min_size=2, max_size=12))
@examples(30)
async def test_the_tables_are_a_fold_of_the_log_however_much_was_erased(
    store: EventStore, database_url: str, steps: Sequence[tuple[str, Any]]
) -> None:
    tenant = str(uuid4())
    digests: dict[UUID, bytes] = {}
    for what, more in steps:
        if what == "append":
            await store.append_all([Append(each, events) for each, events in more.items()], tenant=tenant)
        elif what == "catch up":
            await catch_up(store)
        else:
            conversation, versions = more
            log = [event async for event in store.read(conversation, tenant=tenant)]
            digests |= {event.id: event.digest for event in log}
            chosen = [
                e.id for e in log if e.version in versions and not isinstance(e.data, ConversationErased | EventErased)
            ]
            if log and (chosen or not versions):
                await store.erase(conversation, chosen or None, tenant=tenant)
    await catch_up(store)
    log = [event async for event in store.read_log(tenant=tenant)]
    assert {event.id: event.digest for event in log}.items() >= digests.items()
    assert stored(database_url, [tenant]) == fold(log)
    assert await differences(store) == []
    reader = Reader(store, caller=store.caller(tenant))
    for conversation in {event.conversation_id for event in log}:
        last = max(event.version for event in log if event.conversation_id == conversation)
        past = await reader.conversation_at(conversation, version=last)
        assert past.messages == tuple([m async for m in _all(reader, conversation)])


async def _all(reader: Reader, conversation: UUID) -> Any:
    for message in await reader.messages(conversation, limit=1000):
        yield message


# Forks, the past and caches


async def test_forks_and_the_past_show_what_was_erased_as_erased(store: EventStore) -> None:
    parent = uuid4()
    await store.append(parent, [ConversationCreated(name="p"), MessageAdded(role="user", content=SECRET)])
    fork = (await store.fork(parent, events=[MessageAdded(role="user", content="own")])).events[0].conversation_id
    second = (await store.fork(fork, events=[MessageAdded(role="user", content="second")])).events[0].conversation_id
    await catch_up(store)
    reader = Reader(store)
    assert [m.content for m in await reader.messages(second)] == [SECRET, "own", "second"]
    await store.erase(parent)
    assert [m.content for m in await reader.messages(second)] == ["", "own", "second"]
    past = await reader.conversation_at(parent, version=2)
    assert [m.content for m in past.messages] == [""]
    assert [m.content for m in (await reader.conversation_at(second, version=2)).messages] == ["", "own", "second"]


async def test_forks_that_repeat_the_name_lose_it_too(store: EventStore, database_url: str) -> None:
    parent = uuid4()
    await store.append(parent, [ConversationCreated(name=SECRET), MessageAdded(role="user", content="x")])
    fork = (await store.fork(parent, name=SECRET)).events[0].conversation_id
    second = (await store.fork(fork, name=SECRET)).events[0].conversation_id
    own = (await store.fork(parent, name="another")).events[0].conversation_id
    await catch_up(store)
    await store.erase(parent)
    await catch_up(store)
    assert SECRET not in everything(database_url)
    reader = Reader(store)
    assert [(await reader.conversation(each)).name for each in (fork, second, own)] == ["", "", "another"]
    assert (await reader.conversation(second)).forked_from is not None


async def test_a_cached_conversation_is_read_again_before_a_worker_runs(store: EventStore) -> None:
    parent = uuid4()
    await store.append(parent, [ConversationCreated(name="p"), MessageAdded(role="user", content=SECRET)])
    fork = (await store.fork(parent)).events[0].conversation_id
    await catch_up(store)
    cache = ConversationCache(Reader(store))
    for conversation in (parent, fork):
        assert [m.content for m in (await cache.conversation(conversation)).messages] == [SECRET]
    await store.erase(parent)
    for conversation in (parent, fork):
        assert [m.content for m in (await cache.conversation(conversation)).messages] == [""]


# Users


async def test_a_user_is_erased_from_their_conversations_and_those_of_others(
    store: EventStore, database_url: str
) -> None:
    own, others, elsewhere = uuid4(), uuid4(), uuid4()
    hello = MessageAdded(role="user", content="hello")
    await store.append(own, [ConversationCreated(name="mine"), hello], user="ana-maria", actor="ana-maria")
    await store.append(own, [ConversationShared(user="ben", access="read")], user="ana-maria", actor="ana-maria")
    await store.append(others, [ConversationCreated(name="ben's"), hello], user="ben", actor="ben")
    await store.append(others, [ConversationShared(user="ana-maria", access="write")], user="ben", actor="ben")
    await store.append(others, [hello], user="ana-maria", actor="ana-maria")
    await store.append(elsewhere, [ConversationCreated(name="no longer")], user="ben", actor="ben")
    await store.append(elsewhere, [ConversationShared(user="ana-maria", access="read")], user="ben", actor="ben")
    await store.append(elsewhere, [ConversationUnshared(user="ana-maria")], user="ben", actor="ben")
    await catch_up(store)
    planned = [erasure async for erasure in store.erase_user("ana-maria", dry_run=True)]
    assert {erasure.conversation_id for erasure in planned} == {own, others, elsewhere}
    done = [erasure async for erasure in store.erase_user("ana-maria", actor="ana-maria")]
    assert sum(erasure.events for erasure in done) == 3 + 2 + 2
    await catch_up(store)
    assert "ana-maria" not in everything(database_url)
    with open_as(database_url, "eventstore_owner") as connection:
        members = connection.execute("SELECT conversation_id, user_id, access FROM conversation_members").fetchall()
    assert set(members) == {(others, "ben", "own"), (elsewhere, "ben", "own")}
    assert await differences(store) == []
    assert [m.content for m in await Reader(store).messages(others)] == ["hello", ""]
    assert [erasure async for erasure in store.erase_user("ana-maria")] == []


async def test_the_receipts_of_a_user_who_is_erased_do_not_name_them_any_more(
    store: EventStore, database_url: str
) -> None:
    own, others = uuid4(), uuid4()
    await store.append(own, [ConversationCreated(name="mine")], user="ana-maria", actor="ana-maria")
    await store.append(others, [ConversationCreated(name="x")], user="ben", actor="ben")
    await store.append(others, [ConversationShared(user="ana-maria", access="write")], user="ben", actor="ben")
    appended = await store.append(others, [MessageAdded(role="user", content="a")], user="ana-maria", actor="ana-maria")
    await catch_up(store)
    await store.erase(own, user="ana-maria", actor="ana-maria", reason="by ana-maria")
    await store.erase(others, [appended.events[0].event_id], user="ana-maria", actor="ana-maria")
    await catch_up(store)
    assert [erasure async for erasure in store.erase_user("ana-maria")]
    await catch_up(store)
    assert "ana-maria" not in everything(database_url)
    for conversation in (own, others):
        named: set[int] = set()
        for event in await events_of(store, conversation):
            if isinstance(event.data, RECEIPTS) and not event.is_erased:
                named |= {version for first, last in event.data.versions for version in range(first, last + 1)}
        assert named == {event.version for event in await events_of(store, conversation) if event.is_erased}


async def test_a_user_erases_what_is_theirs(store: EventStore) -> None:
    conversation, hidden = uuid4(), uuid4()
    hello = MessageAdded(role="user", content="hello")
    of_ben = (await store.append(conversation, [hello], user="ben", actor="ben")).events[0]
    await store.append(conversation, [ConversationShared(user="ana", access="write")], user="ben", actor="ben")
    of_ana = (await store.append(conversation, [hello], user="ana", actor="ana")).events[0]
    await store.append(hidden, [hello], user="ben", actor="ben")
    with pytest.raises(Forbidden):
        await store.erase(conversation, user="ana")
    with pytest.raises(Forbidden):
        await store.erase(conversation, [of_ben.event_id, of_ana.event_id], user="ana", dry_run=True)
    with pytest.raises(NotFound):
        await store.erase(hidden, user="ana")
    with pytest.raises(PermissionDenied, match="may not erase the user"):
        [erasure async for erasure in store.erase_user("ben", user="ana")]
    assert (await store.erase(conversation, [of_ana.event_id], user="ana", actor="ana")).events == 1
    assert (await store.erase(conversation, user="ben", actor="ben")).events == 2


# Who may


@pytest.mark.parametrize(
    "role",
    ["eventstore_writer", "eventstore_auditor", "eventstore_reader", "eventstore_app", "eventstore_projector",
     "eventstore_search", "eventstore_migrator", "eventstore_owner"],
)  # fmt: skip
async def test_no_other_role_changes_an_event(store: EventStore, superuser_url: str, role: str) -> None:
    conversation = uuid4()
    await store.append(conversation, [MessageAdded(role="user", content="x")])
    change = "UPDATE events SET salt = NULL"
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchall():
            pytest.skip("the server has no roles of the store")
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(change)  # the superuser itself
        connection.execute(f"SET ROLE {role}".encode())
        connection.execute("SELECT set_config('eventstore.tenant', 'default', false)")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.RestrictViolation)):
            connection.execute(change)
        for call in (
            "SELECT erase_events('default', %s, NULL, NULL, false, 0)",
            "SELECT append_erasure('default', %s, gen_random_uuid(), '{[1,1]}', now(), true, false, '', '')",
        ):
            if role not in ("eventstore_owner", "eventstore_migrator"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(call, (conversation,))
    assert not any(event.is_erased for event in await events_of(store, conversation))


@pytest.mark.parametrize(
    "change",
    [
        "content = '{}'",
        "salt = '\\x00'",
        "salt = salt",
        'actor = \'\', content = \'{"role": "user", "content": "forged"}\', salt = NULL',
        "actor = '', content = erased_content(event_type, content, false), metadata = '{\"x\": 1}', salt = NULL",
        "actor = 'x', content = erased_content(event_type, content, false), salt = NULL",
        "actor = '', content = erased_content(event_type, content, false)",
    ],
)
async def test_the_eraser_makes_no_other_change(store: EventStore, database_url: str, change: str) -> None:
    await store.append(uuid4(), [MessageAdded(role="user", content="x")])
    with open_as(database_url, "eventstore_eraser") as connection:
        connection.execute("SELECT set_config('eventstore.tenant', 'default', false)")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.RestrictViolation)):
            connection.execute(f"UPDATE events SET {change}".encode())
        for statement in ("DELETE FROM events", "TRUNCATE events", "UPDATE events SET digest = ''"):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.RestrictViolation)):
                connection.execute(statement.encode())


def commit(connection: psycopg.Connection[tuple[Any, ...]], *statements: tuple[str, list[Any]]) -> None:
    """Execute statements in one transaction."""
    with connection.transaction():
        for statement, parameters in statements:
            connection.execute(statement.encode(), parameters)


APPEND_RECEIPT = (
    "SELECT append_erasure('default', %s, gen_random_uuid(), %s::int4multirange, now(), true, false, '', '')"
)


async def test_the_eraser_erases_nothing_without_a_receipt(store: EventStore, database_url: str) -> None:
    conversation, other = uuid4(), uuid4()
    for each in (conversation, other):
        await store.append(each, secrets()[:3])
    before = await events_of(store, conversation)
    erase = "UPDATE events SET salt = NULL WHERE conversation_id = %s AND version <= 2"
    with open_as(database_url, "eventstore_eraser") as connection:
        connection.execute("SELECT set_config('eventstore.tenant', 'default', false)")
        for statements in (
            [(erase, [conversation])],
            [("SELECT erase_events('default', %s, NULL, NULL, false, 0)", [conversation])],
            [(erase, [conversation]), (APPEND_RECEIPT, [conversation, "{[1,1]}"])],
            [(erase, [other]), (erase, [conversation]), (APPEND_RECEIPT, [other, "{[1,2]}"])],
        ):
            with pytest.raises(psycopg.errors.RestrictViolation, match="no receipt names the versions"):
                commit(connection, *statements)
        assert await events_of(store, conversation) == before
        commit(connection, (erase, [conversation]), (APPEND_RECEIPT, [conversation, "{[1,2]}"]))
    assert [event.is_erased for event in await events_of(store, conversation)] == [True, True, False, False]


async def test_a_receipt_is_erased_only_if_another_one_takes_its_place(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    await store.append(conversation, secrets()[:3])
    await store.erase(conversation)
    erase = "UPDATE events SET salt = NULL WHERE conversation_id = %s AND version = 4"
    with open_as(database_url, "eventstore_eraser") as connection:
        connection.execute("SELECT set_config('eventstore.tenant', 'default', false)")
        with pytest.raises(psycopg.errors.RestrictViolation, match="no receipt names the versions"):
            commit(connection, (erase, [conversation]), (APPEND_RECEIPT, [conversation, "{[4,4]}"]))
        commit(connection, (erase, [conversation]), (APPEND_RECEIPT, [conversation, "{[1,4]}"]))
    assert [event.is_erased for event in await events_of(store, conversation)] == [True] * 4 + [False]


async def test_the_eraser_reaches_only_its_tenant_and_no_receipt_lies(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    await store.append(conversation, [MessageAdded(role="user", content="x")], tenant="other")
    call = "SELECT append_erasure(%s, %s, gen_random_uuid(), '{[1,1]}', now(), true, false, '', '')"
    with open_as(database_url, "eventstore_eraser") as connection:
        connection.execute("SELECT set_config('eventstore.tenant', 'default', false)")
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT erase_events('other', %s, NULL, NULL, false, 0)", (conversation,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(call, ("other", conversation))
        connection.execute("SELECT set_config('eventstore.tenant', 'other', false)")
        with pytest.raises(psycopg.Error, match="which are not all erased"):
            connection.execute(call, ("other", conversation))


async def test_nobody_appends_a_receipt(store: EventStore) -> None:
    receipts = (
        ConversationErased(versions=[[1, 1]], until="2026-01-01T00:00:00+00:00"),
        EventErased(versions=[[1, 1]], until="2026-01-01T00:00:00+00:00"),
        ApplicationEvent("event.erased", {}),
    )
    for receipt in receipts:
        with pytest.raises(InputError, match="the receipt of an erasure"):
            await store.append(uuid4(), [receipt])


async def test_the_error_of_a_login_without_the_role_names_the_role(
    store: EventStore, superuser_url: str, database_url: str
) -> None:
    conversation = uuid4()
    await store.append(conversation, [MessageAdded(role="user", content="x")])
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        name = f"plain_{uuid4().hex[:8]}"
        superuser.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'".encode())
        superuser.execute(f"GRANT eventstore_app, eventstore_projector TO {name}".encode())
        try:
            url = f"postgresql://{name}:secret@{database_url.partition('@')[2]}"
            async with EventStore(Settings(database_url=url)) as plain:
                with pytest.raises(PermissionDenied, match=f"GRANT eventstore_eraser, .* TO {name}"):
                    await plain.erase(conversation)
        finally:
            superuser.execute(f"DROP ROLE {name}".encode())


# What can go wrong


async def test_events_and_ids_that_do_not_exist(store: EventStore) -> None:
    conversation = uuid4()
    with pytest.raises(NotFound, match="no conversation has the id"):
        await store.erase(conversation)
    await store.append(conversation, [MessageAdded(role="user", content="x")])
    with pytest.raises(NotFound, match="has no event"):
        await store.erase(conversation, [uuid4()])
    with pytest.raises(InputError, match="event_ids: is empty"):
        await store.erase(conversation, [])
    with pytest.raises(InputError, match="reason"):
        await store.erase(conversation, reason="x" * 1001)


async def test_repeating_an_append_after_the_erasure_changes_nothing(store: EventStore) -> None:
    conversation, event = uuid4(), NewEvent(MessageAdded(role="user", content=SECRET))
    await store.append(conversation, [event])
    await store.erase(conversation)
    [again] = (await store.append(conversation, [event])).events
    assert (again.is_new, again.version) == (False, 1)
    assert SECRET not in str([event.content for event in await events_of(store, conversation)])


async def test_a_deleted_conversation_stays_deleted(store: EventStore) -> None:
    from eventstore import ConversationDeleted
    from eventstore.errors import ConversationIsDeleted

    conversation = uuid4()
    await store.append(conversation, [MessageAdded(role="user", content="x"), ConversationDeleted()])
    await store.erase(conversation)
    with pytest.raises(ConversationIsDeleted):
        await store.append(conversation, [MessageAdded(role="user", content="y")])
    await catch_up(store)
    assert (await Reader(store).conversation(conversation)).is_deleted


async def test_appends_go_on_while_a_conversation_is_erased(store: EventStore, database_url: str) -> None:
    """Appends elsewhere wait for nothing, those to the conversation follow it, and none is erased that came after."""
    conversation, other = uuid4(), uuid4()
    await store.append(conversation, [MessageAdded(role="user", content=SECRET)] * 200)
    await catch_up(store)
    with open_scoped(database_url) as blocker:
        blocker.autocommit = False
        blocker.execute("SET ROLE eventstore_projector")
        blocker.execute("SELECT FROM checkpoints FOR UPDATE")
        erasing = asyncio.create_task(store.erase(conversation))
        await until_async(lambda: _waits_for_checkpoints(database_url), "the erasure waits for a checkpoint")
        late = asyncio.create_task(store.append(conversation, [MessageAdded(role="user", content="late")]))
        result = await store.append(other, [MessageAdded(role="user", content="elsewhere")])
        assert [event.position async for event in store.read_log(after=result.position - 1)] == [result.position]
        assert not erasing.done()
        assert not late.done()
    assert (await erasing).events == 200
    assert (await late).version == 202
    await catch_up(store)
    assert (await Reader(store).messages(conversation, limit=1000))[-1].content == "late"
    assert await differences(store) == []


async def _waits_for_checkpoints(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {REFOLDING}".encode()).fetchone()
    return row is not None and row[0] > 0


async def test_an_erasure_that_is_killed_has_changed_nothing(
    store: EventStore, superuser_url: str, database_url: str
) -> None:
    conversation = uuid4()
    await store.append(conversation, [MessageAdded(role="user", content=SECRET)] * 3)
    await catch_up(store)
    before = stored(database_url)
    with open_scoped(database_url) as blocker:
        blocker.autocommit = False
        blocker.execute("SET ROLE eventstore_projector")
        blocker.execute("SELECT FROM checkpoints FOR UPDATE")
        erasing = asyncio.create_task(store.erase(conversation))
        await until_async(lambda: _waits_for_checkpoints(database_url), "the erasure waits for a checkpoint")
        with psycopg.connect(superuser_url) as superuser:
            superuser.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {REFOLDING}".encode())
        with pytest.raises(ConnectionLost):
            await erasing
    assert stored(database_url) == before
    assert not any(event.is_erased for event in await events_of(store, conversation))
    assert (await store.erase(conversation)).events == 3


# Custom projections

LENGTHS = Projection(
    "lengths",
    ("lengths",),
    "INSERT INTO lengths SELECT b.tenant_id, b.conversation_id, b.version, length(b.content ->> 'content')"
    " FROM batch b WHERE b.event_type = 'message.added'",
    setup="CREATE TABLE lengths (tenant_id text, conversation_id uuid, version integer, length integer NOT NULL)",
)
STRICT = Projection(
    "strict",
    ("strict",),
    "INSERT INTO strict SELECT b.tenant_id, b.conversation_id, b.content ->> 'word' FROM batch b"
    " WHERE b.event_type = 'noted'",
    setup="CREATE TABLE strict (tenant_id text, conversation_id uuid, word text NOT NULL)",
)
TOTALS = Projection(
    "totals",
    ("totals",),
    "INSERT INTO totals SELECT count(*) FROM batch",
    setup="CREATE TABLE totals (number bigint)",
)


@projection("texts", setup="CREATE TABLE texts (tenant_id text, conversation_id uuid, content text)")
async def python_texts(connection: Any, events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event.data, MessageAdded):
            values = (event.tenant_id, event.conversation_id, event.data.content)
            await connection.execute("INSERT INTO texts VALUES (%s, %s, %s)", values)


async def test_custom_projections_are_folded_again(store: EventStore, database_url: str) -> None:
    conversation, other = uuid4(), uuid4()
    custom = [*PROJECTIONS, LENGTHS, STRICT, TOTALS, python_texts]
    for each in (conversation, other):
        await store.append(
            each, [MessageAdded(role="user", content=SECRET), ApplicationEvent("noted", {"word": SECRET})]
        )
    await catch_up(store, custom)
    erasure = await store.erase(conversation)
    assert set(erasure.not_refolded) == {"strict", "totals", "texts"}

    def rows(table: str) -> list[tuple[Any, ...]]:
        with open_as(database_url, "eventstore_projector") as connection:
            text = f"SELECT * FROM {table} WHERE conversation_id = %s"
            return connection.execute(text.encode(), (conversation,)).fetchall()

    assert [row[2:] for row in rows("lengths")] == [(1, 0)]
    assert (rows("strict"), rows("texts")) == ([], [])  # gone; the conversation is parked there
    parked = await read_parked(store, custom)
    assert {(each.projection, each.conversation_id) for each in parked} == {
        ("strict", conversation), ("texts", conversation),
    }  # fmt: skip
    await retry_parked(store, [python_texts])
    assert [row[2] for row in rows("texts")] == [""]


async def test_rows_of_inline_projections_are_removed(store: EventStore, database_url: str) -> None:
    from projections.inline import InlineAppender

    conversation = uuid4()
    async with InlineAppender(store, [LENGTHS]) as inline:
        await inline.append(conversation, [MessageAdded(role="user", content=SECRET)])
        await store.erase(conversation)
    with open_as(database_url, "eventstore_projector") as connection:
        assert connection.execute("SELECT count(*) FROM lengths").fetchone() == (0,)


def test_a_synchronous_store_erases(database_url: str, store: EventStore) -> None:
    from eventstore import SyncEventStore

    conversation = uuid4()
    with SyncEventStore(store.settings) as synchronous:
        synchronous.append(conversation, [MessageAdded(role="user", content="x")], user="ana", actor="ana")
        assert isinstance(synchronous.erase(conversation), Erasure)
        assert [erasure.events for erasure in synchronous.erase_user("ana")] == [1]
        messages = [event for event in synchronous.read(conversation) if event.event_type == "message.added"]
        assert [event.raw_metadata for event in messages] == [{}]


async def test_an_answer_to_an_erased_message_is_recorded(store: EventStore) -> None:
    conversation = uuid4()
    place = (await store.append(conversation, [MessageAdded(role="user", content="x", awaits_answer=True)])).events[0]
    await catch_up(store)
    await store.erase(conversation)
    await store.append(conversation, [MessageAnswered(message_id=place.event_id, outcome="answered")])
    await catch_up(store)
    [message] = await Reader(store).messages(conversation)
    assert message.status == "answered"
