"""Lists in pages: each row once, in order, while rows arrive; one statement a page; after what was written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.waiting import until_async
from support.wire import Wire, wire_to

from eventstore import (
    ApplicationEvent,
    Caller,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationShared,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
    Settings,
    TaskCreated,
    TaskStatusChanged,
)
from eventstore.errors import InputError, InvalidCursor, NotCaughtUp
from projections import PROJECTIONS, Page, Reader, all_items, applied_position, catch_up, reading
from projections.apply import Applier
from projections.custom_projections import create_missing_tables

pytestmark = pytest.mark.shared_database

START = datetime(2026, 1, 1, tzinfo=UTC)
Read: TypeAlias = Callable[..., Awaitable[Page[Any]]]


def at(second: int) -> Metadata:
    return Metadata(occurred_at=START + timedelta(seconds=second))


def message_at(text: str, second: int, actor: str = "ana", role: str = "user") -> NewEvent:
    return NewEvent(MessageAdded(role=role, content=text), actor=actor, metadata=at(second))  # type: ignore[arg-type]


async def in_pages(read: Read, *what: Any, **which: Any) -> list[Any]:
    """All rows, by pages of the limit, each full but the last."""
    rows: list[Any] = []
    after = None
    while True:
        page = await read(*what, after=after, **which)
        rows += page
        if page.next is None:
            return rows
        assert len(page) == which["limit"]
        after = page.next


async def fill(store: EventStore) -> Reader:
    """Append seven conversations of five messages and three tasks; several share each time."""
    for number in range(7):
        conversation, tasks = UUID(int=number), [UUID(int=100 + number * 10 + n) for n in range(3)]
        second = number // 2
        await store.append(
            conversation,
            [NewEvent(ConversationCreated(name=str(number)), actor="ana" if number % 2 else "bob", metadata=at(second))]
            + [message_at(str(n), second + n // 2, "agent", "assistant" if n % 2 else "user") for n in range(5)]
            + [NewEvent(TaskCreated(task_id=task, description="x"), metadata=at(second)) for task in tasks]
            + [NewEvent(TaskStatusChanged(task_id=tasks[0], status="failed"), metadata=at(9))],  # type: ignore[arg-type]
        )
    await catch_up(store)
    return Reader(store)


@pytest.fixture
async def filled(store: EventStore) -> Reader:
    """A reader of these conversations, and of what the test adds to them."""
    return await fill(store)


@pytest.fixture(scope="module")
async def listed(module_store: EventStore) -> Reader:
    """A reader of these conversations, to which no test adds anything."""
    return await fill(module_store)


LISTS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "conversations": ("conversations", (), {}),
    "conversations by creation": ("conversations", (), {"by": "created"}),
    "an actor's": ("conversations", (), {"actor": "ana"}),
    "an actor's by creation": ("conversations", (), {"actor": "agent", "by": "created"}),
    "messages": ("messages", (UUID(int=3),), {}),
    "a role's": ("messages", (UUID(int=3),), {"role": "user"}),
    "all messages": ("messages", (), {}),
    "all of a role": ("messages", (), {"role": "assistant", "actor": "agent"}),
    "tasks": ("tasks", (UUID(int=3),), {}),
    "all tasks": ("tasks", (), {}),
    "failed tasks": ("tasks", (), {"status": "failed"}),
    "the trail": ("history", (UUID(int=3),), {}),
    "a trail of messages": ("history", (UUID(int=3),), {"types": ["message.added"]}),
    "the whole trail": ("history", (), {}),
    "an actor's trail": ("history", (), {"actor": "agent"}),
}
every_list = pytest.mark.parametrize(("name", "what", "which"), LISTS.values(), ids=list(LISTS))


@every_list
@pytest.mark.parametrize("newest_first", [False, True])
async def test_the_pages_together_are_the_list(
    listed: Reader, name: str, what: tuple[Any, ...], which: dict[str, Any], newest_first: bool
) -> None:
    read = getattr(listed, name)
    whole = await read(*what, newest_first=newest_first, **which)
    assert whole
    assert whole.next is None
    assert whole == (await read(*what, newest_first=not newest_first, **which))[::-1]
    for limit in (1, 2, 3, len(whole) - 1 or 1, len(whole), len(whole) + 1):
        assert await in_pages(read, *what, newest_first=newest_first, limit=limit, **which) == whole
    assert [row async for row in all_items(read, *what, newest_first=newest_first, limit=2, **which)] == whole


OF_ALL = {name: case for name, case in LISTS.items() if case[0] != "history" and not case[1]}


@pytest.mark.parametrize("few", [2, 3], ids=["of many", "of few"])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_member_gets_what_the_tenant_has_of_their_conversations(
    filled: Reader, monkeypatch: pytest.MonkeyPatch, few: int, newest_first: bool
) -> None:
    monkeypatch.setattr(reading, "FEW_CONVERSATIONS", few)
    shared = [UUID(int=number) for number in (1, 2, 5)]
    for conversation in shared:
        await filled.store.append(conversation, [ConversationShared(user="eve", access="read")])
    await catch_up(filled.store)
    member = Reader(filled.store, caller=Caller(filled.tenant, "eve"))
    for name, (listing, what, which) in OF_ALL.items():
        whole = await getattr(filled, listing)(*what, newest_first=newest_first, **which)
        theirs = [row for row in whole if (row.id if listing == "conversations" else row.conversation_id) in shared]
        assert theirs, name
        read = getattr(member, listing)
        assert await in_pages(read, *what, newest_first=newest_first, limit=2, **which) == theirs, name
    assert await Reader(filled.store, caller=Caller(filled.tenant, "nobody")).conversations() == []


@pytest.mark.parametrize(("name", "what", "which"), [case for case in LISTS.values() if case[:2] != ("history", ())])
async def test_a_page_is_one_statement(listed: Reader, name: str, what: tuple[Any, ...], which: dict[str, Any]) -> None:
    more = {} if name == "history" else {"at_least": 1}
    async with through_a_wire(listed.store.server.url) as (wire, reader):
        read = getattr(reader, name)
        cursor = None
        for _ in range(8):  # until the driver has prepared the statements
            cursor = (await read(*what, limit=1, **which, **more)).next
            await read(*what, limit=1, after=cursor, **which, **more)
        before = wire.rounds
        await read(*what, limit=1, after=cursor, **which, **more)
        assert wire.rounds == before + 1
        await read(*what, **which, **more)
        assert wire.rounds == before + 2


@asynccontextmanager
async def through_a_wire(url: str) -> AsyncIterator[tuple[Wire, Reader]]:
    """A reader whose round trips are counted."""
    async with wire_to(url) as wire, EventStore(Settings(database_url=wire.url, pool_size=1)) as store:
        yield wire, Reader(store)


async def test_a_cursor_is_valid_for_one_list_only(listed: Reader) -> None:
    cursor = (await listed.messages(UUID(int=3), limit=1)).next
    assert cursor is not None
    refused: list[Callable[[], Awaitable[Any]]] = [
        lambda: listed.tasks(UUID(int=3), after=cursor),
        lambda: listed.messages(after=cursor),
        lambda: listed.messages(UUID(int=4), after=cursor),
        lambda: listed.messages(UUID(int=3), role="user", after=cursor),
        lambda: listed.messages(UUID(int=3), newest_first=True, after=cursor),
        lambda: listed.messages(UUID(int=3), after=cursor[:-2]),
        lambda: listed.messages(UUID(int=3), after=""),
        lambda: listed.history(UUID(int=3), after=cursor),
        lambda: Reader(listed.store, "other").messages(UUID(int=3), after=cursor),
    ]
    for call in refused:
        with pytest.raises(InvalidCursor):
            await call()
    assert [m.content for m in await listed.messages(UUID(int=3), after=cursor, limit=2)] == ["1", "2"]


async def test_a_limit_of_zero_returns_the_same_cursor(listed: Reader) -> None:
    first = await listed.conversations(limit=2)
    assert await listed.conversations(limit=0, after=first.next) == []
    assert (await listed.conversations(limit=0, after=first.next)).next == first.next
    with pytest.raises(InputError, match="limit: -1"):
        await listed.messages(limit=-1)


async def test_conversations_of_an_actor_are_those_with_an_event_of_theirs(filled: Reader) -> None:
    async def names(actor: str, **which: Any) -> list[str]:
        return sorted(c.name for c in await filled.conversations(actor=actor, **which))

    assert await names("ana") == ["1", "3", "5"]
    assert await names("bob") == ["0", "2", "4", "6"]
    assert len(await names("agent")) == 7
    assert await names("nobody") == []
    store = filled.store
    await store.append(UUID(int=1), [NewEvent(ConversationArchived(), actor="eve", metadata=at(50))])
    await store.append(UUID(int=2), [NewEvent(ConversationDeleted(), actor="eve", metadata=at(60))])
    await store.append(UUID(int=3), [NewEvent(ApplicationEvent("noted", {}), actor="eve", metadata=at(40))])
    await catch_up(store)
    assert [c.name for c in await filled.conversations(actor="eve")] == ["1", "3"]
    assert [c.name for c in await filled.conversations(actor="eve", deleted=True)] == ["2", "1", "3"]
    assert await names("eve", active=False) == ["1"]
    assert await names("eve", since=at(45).occurred_at) == ["1"]


async def test_times_are_half_open_ranges(listed: Reader) -> None:
    since, until = at(1).occurred_at, at(3).occurred_at

    async def times(read: Read, *what: Any) -> set[datetime]:
        rows = await read(*what, since=since, until=until)
        assert [row for row in await read(*what) if since <= row.created_at < until] == rows
        return {row.created_at for row in rows}

    assert await times(listed.messages) == {at(1).occurred_at, at(2).occurred_at}
    assert await times(listed.messages, UUID(int=2)) == {at(1).occurred_at, at(2).occurred_at}
    assert await times(listed.tasks) == {at(1).occurred_at, at(2).occurred_at}
    created = await listed.conversations(by="created", since=since, until=until)
    assert {row.name for row in created} == {"2", "3", "4", "5"}
    assert len(await listed.conversations(since=at(9).occurred_at)) == 7  # of the last update
    assert await listed.messages(since=until, until=since) == []
    for read in (listed.messages, listed.tasks, listed.conversations, listed.history):
        with pytest.raises(InputError, match="not a datetime with a time zone"):
            await read(since=datetime(2026, 1, 1))


async def test_unknown_values_are_refused(listed: Reader) -> None:
    with pytest.raises(InputError, match="by: 'name' is unknown"):
        await listed.conversations(by="name")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="after_version: is a version of one conversation"):
        await listed.messages(after_version=3)
    with pytest.raises(InputError, match="at_least: -1"):
        await listed.messages(at_least=-1)


async def test_rows_that_arrive_between_pages_move_nothing(filled: Reader) -> None:
    store, new = filled.store, uuid4()
    lists: list[tuple[Read, tuple[Any, ...], dict[str, Any]]] = [
        (filled.conversations, (), {"by": "created", "newest_first": True}),
        (filled.conversations, (), {"by": "created", "actor": "agent", "newest_first": False}),
        (filled.messages, (UUID(int=3),), {"newest_first": True}),
        (filled.messages, (), {"newest_first": False}),
        (filled.tasks, (), {"newest_first": True}),
        (filled.history, (UUID(int=3),), {"newest_first": True}),
    ]
    before = [list(await read(*what, **which)) for read, what, which in lists]
    firsts = [await read(*what, limit=3, **which) for read, what, which in lists]
    for number in range(7):
        await store.append(UUID(int=number), [message_at("late", 2)])
    await store.append(new, [message_at("new", 1), NewEvent(TaskCreated(task_id=new, description="x"), metadata=at(1))])
    await catch_up(store)
    for (read, what, which), first, rows in zip(lists, firsts, before, strict=True):
        rest: list[Any] = []
        after: str | None = first.next
        while after is not None:
            page = await read(*what, limit=2, after=after, **which)
            rest += page
            after = page.next
        seen = [_key(row) for row in (*first, *rest)]
        assert len(set(seen)) == len(seen)
        assert [key for key in seen if key in set(map(_key, rows))] == [_key(row) for row in rows]


async def test_an_update_moves_a_conversation_to_the_newest_end(filled: Reader) -> None:
    """Newest first none comes twice; oldest first none is left out."""
    newest = await filled.conversations(limit=3)
    oldest = await filled.conversations(newest_first=False, limit=3)
    for first in (newest[0], oldest[0]):
        await filled.store.append(first.id, [message_at("again", 100)])
    await catch_up(filled.store)
    rest_newest = await filled.conversations(after=newest.next)
    rest_oldest = await filled.conversations(newest_first=False, after=oldest.next)
    assert not {c.id for c in newest} & {c.id for c in rest_newest}
    assert {c.id for c in (*oldest, *rest_oldest)} == {UUID(int=number) for number in range(7)}
    assert {newest[0].id, oldest[0].id} <= {c.id for c in rest_oldest}


def _key(row: Any) -> Any:
    return (getattr(row, "conversation_id", None), row.id)


steps = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=3)), max_size=8
)


@given(steps, st.booleans(), st.integers(1, 3))
@examples(12)
async def test_rows_that_exist_throughout_are_read_exactly_once(
    store: EventStore, steps: list[tuple[int, list[tuple[int, bool]]]], newest_first: bool, limit: int
) -> None:
    """The model: what stood there before the first page is among the rows, in its order, and no row comes twice."""
    tenant = str(uuid4())
    reader = Reader(store, tenant)

    async def write(number: int, second: int) -> None:
        await store.append(UUID(int=number), [message_at("x", second)], tenant=tenant)

    for number in range(4):
        await write(number, number % 2)
    await catch_up(store)
    reads: list[tuple[Read, dict[str, Any]]] = [
        (reader.conversations, {"by": "created"}),
        (reader.conversations, {"by": "created", "actor": "ana"}),
        (reader.messages, {}),
    ]
    before = [[_key(row) for row in await read(newest_first=newest_first, **which)] for read, which in reads]
    seen: list[list[Any]] = [[] for _ in reads]
    cursors: list[Any] = [None for _ in reads]
    for number, more in (*steps, *[(0, [])] * 40):
        for place, (read, which) in enumerate(reads):
            if cursors[place] != "end":
                page = await read(newest_first=newest_first, limit=limit, after=cursors[place], **which)
                seen[place] += map(_key, page)
                cursors[place] = page.next or "end"
        for second, is_new in more:
            await write(uuid4().int if is_new else number, second)
        if more:
            await catch_up(store)
        if set(cursors) == {"end"}:
            break
    assert set(cursors) == {"end"}
    for rows, keys in zip(before, seen, strict=True):
        assert len(set(keys)) == len(keys)
        assert [key for key in keys if key in set(rows)] == rows


async def test_a_read_waits_for_the_position_that_it_names(store: EventStore) -> None:
    conversation = uuid4()
    result = await store.append(conversation, [message_at("mine", 1), TaskCreated(task_id=uuid4(), description="x")])
    reader = Reader(store)
    reads: list[Callable[[], Awaitable[Any]]] = [
        lambda: reader.conversation(conversation, at_least=result.position),
        lambda: reader.conversations(at_least=result.position),
        lambda: reader.conversations(actor="ana", at_least=result.position),
        lambda: reader.messages(conversation, at_least=result.position),
        lambda: reader.tasks(at_least=result.position),
    ]
    assert await reader.messages(conversation) == []
    waiting = [asyncio.ensure_future(read()) for read in reads]
    await until_async(lambda: _waits(store, waiting), "they wait")
    await catch_up(store)
    found = await asyncio.gather(*waiting)
    assert found[0].id == conversation
    assert [len(rows) for rows in found[1:]] == [1, 1, 1, 1]
    assert await reader.messages(uuid4(), at_least=result.position) == []


async def _waits(store: EventStore, waiting: list[asyncio.Future[Any]]) -> bool:
    await store.connections.reader.fetch("SELECT")
    assert not any(task.done() for task in waiting)
    return True


async def test_a_read_that_times_out_is_not_caught_up(store: EventStore) -> None:
    result = await store.append(uuid4(), [message_at("x", 1)])
    with pytest.raises(NotCaughtUp, match=f"not applied position {result.position} after"):
        await Reader(store, timeout=0.05).messages(at_least=result.position)


async def test_a_read_waits_only_for_what_its_tenant_wrote(store: EventStore) -> None:
    own, foreign = uuid4(), uuid4()
    await create_missing_tables(store, PROJECTIONS)
    first = await store.append(own, [message_at("mine", 1)], tenant="acme")
    for _ in range(20):  # conversations of all partitions, until one of them is behind
        await store.append(foreign, [message_at("theirs", 1)], tenant="globex")
        foreign = uuid4()
    last = await store.append(own, [message_at("mine again", 2)], tenant="acme")
    [[partition]] = await store.connections.reader.fetch("SELECT partition_of(%(own)s)", {"own": own})
    applier = await Applier.open(store)
    try:
        for projection in PROJECTIONS:
            await applier.register(projection)
            await applier.apply_all(projection, partitions=[partition])
    finally:
        await applier.close()
    assert await applied_position(store) < last.position, "most partitions are behind"
    reader = Reader(store, "acme", timeout=0.2)
    for position in (first.position, last.position):
        assert len(await reader.messages(own, at_least=position)) == 2
        assert len(await reader.conversations(at_least=position)) == 1
    with pytest.raises(NotCaughtUp):
        await Reader(store, "globex", timeout=0.2).conversations(at_least=last.position)
