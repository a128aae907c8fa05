"""A fork shows what it shares, up to the version at which it was made, and then its own; nothing is copied."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st
from support.examples import examples
from support.folding import TASK_EVENTS
from support.histories import new_events
from support.scoped_queries import open_as
from support.states import modelled, row_of

from eventstore import (
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationShared,
    ConversationUnshared,
    Event,
    EventStore,
    MessageAdded,
    MessageAnswered,
    NewEvent,
    Settings,
    SyncEventStore,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatusChanged,
)
from eventstore.errors import ConversationIsDeleted, InputError, InvalidCursor, NotFound, WrongExpectedVersion
from eventstore.events import HIGHEST_POSITION
from projections import (
    PROJECTIONS,
    Ancestor,
    ConversationCache,
    Reader,
    SyncReader,
    all_items,
    catch_up,
    rebuild,
    verify,
)

pytestmark = pytest.mark.shared_database


def message(text: str, **more: Any) -> MessageAdded:
    return MessageAdded(role="user", content=text, **more)


async def begun(store: EventStore, *texts: str, **caller: Any) -> UUID:
    """A conversation with these messages, from version 2 on."""
    conversation = uuid4()
    await store.append(conversation, [ConversationCreated(name="trip"), *map(message, texts)], **caller)
    return conversation


async def forked(store: EventStore, source: UUID, version: int | None = None, *texts: str, **more: Any) -> UUID:
    result = await store.fork(source, version, events=[message(text) for text in texts], **more)
    return result.events[0].conversation_id


async def contents(reader: Reader, conversation: UUID, **options: Any) -> list[str]:
    return [message.content for message in await reader.messages(conversation, **options)]


# The model: the events of each conversation, and what each continues


@dataclass
class Model:
    """Conversations as lists of their events, and the source and version of each fork."""

    events: dict[UUID, list[Event]] = field(default_factory=dict)
    sources: dict[UUID, tuple[UUID, int]] = field(default_factory=dict)
    deleted: set[UUID] = field(default_factory=set)

    def chain(self, conversation: UUID, version: int | None = None) -> list[list[Event]]:
        """The events that a conversation shows, of the one that was begun first, and so on to its own."""
        events = [event for event in self.events[conversation] if version is None or event.version <= version]
        source, up_to = self.sources.get(conversation, (None, 0))
        if source is None or source in self.deleted:
            return [events]
        return [*self.chain(source, up_to), events]

    def folded(self, conversation: UUID, version: int | None = None) -> list[list[Event]]:
        """The same, with the later events by which the shared conversations hide tasks and messages, from forks too."""
        *shared, own = self.chain(conversation, version)
        result = [own]
        for events in reversed(shared):
            conversation, last = self.sources[conversation]
            result.insert(0, events + [e for e in self.events[conversation] if e.version > last and hides(e)])
        return result


_REWOUND = "conversation.rewound"


def hides(event: Event) -> bool:
    """Return whether an event hides earlier messages or tasks of its conversation."""
    return event.event_type in (_REWOUND, "task.deleted")


_UNANSWERED = {"status": None, "error": None}


def messages_of(chain: list[list[Event]]) -> list[dict[str, Any]]:
    *shared, own = chain
    rows = [row | _UNANSWERED for events in shared for row in (modelled(events)[1] if events else [])]
    return rows + modelled(own)[1]


def tasks_of(chain: list[list[Event]]) -> list[tuple[dict[str, Any], Any]]:
    """The rows of one conversation with all these events."""
    joined: list[Event] = []
    for events in chain:
        base = joined[-1].version if joined else 0
        for event in without_hidden_tasks(events):
            content = event.content
            if event.event_type == _REWOUND:
                content = {"to_version": content["to_version"] + base}
            joined.append(
                Event(
                    len(joined), event.timestamp, event.version + base, event.schema_version,
                    chain[-1][0].conversation_id, event.id, event.tenant_id, event.event_type, event.actor, content,
                    event.raw_metadata, None, b"",
                )
            )  # fmt: skip
    _, _, tasks, artifacts = modelled(joined)
    return [(_without_place(task), chunks) for task, chunks in zip(tasks, artifacts, strict=True)]


def without_hidden_tasks(events: list[Event]) -> list[Event]:
    """The events of a conversation without those of tasks that it hides because it went back to an earlier version."""
    shown: list[Event] = []
    for event in events:
        if event.event_type == _REWOUND:
            begun: dict[str, int] = {}
            for each in shown:
                if each.event_type == "task.deleted":
                    begun.pop(each.content["task_id"], None)
                elif each.event_type in TASK_EVENTS:
                    begun.setdefault(each.content["task_id"], each.version)
            hidden = {task for task, version in begun.items() if version > event.content["to_version"]}
            shown = [
                each for each in shown if each.event_type not in TASK_EVENTS or each.content["task_id"] not in hidden
            ]
        shown.append(event)
    return shown


def _without_place(task: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in task.items() if name not in ("conversation_id", "version", "artifacts")}


def read_tasks_of(tasks: Any) -> list[tuple[dict[str, Any], Any]]:
    return [(_without_place(row_of(task)), task.artifacts) for task in tasks]


_HANDLED = ("conversation.deleted", "conversation.reactivated", "conversation.forked")
_appended = new_events.filter(lambda event: event.data.event_type not in _HANDLED)
_steps = st.lists(
    st.tuples(st.just("append"), st.integers(0, 9), st.lists(_appended, min_size=1, max_size=3))
    | st.tuples(st.just("fork"), st.integers(0, 9), st.integers(0, 9))
    | st.tuples(st.just("delete"), st.integers(0, 9), st.none()),
    min_size=2,
    max_size=14,
)


async def play(store: EventStore, tenant: str, steps: Any) -> Model:
    """Append, fork and delete; return the model of it."""
    model = Model()
    order: list[UUID] = []
    for step, number, what in [("append", 0, [NewEvent(message("first"))]), *steps]:
        conversation = order[number % len(order)] if order else uuid4()
        if not order:
            order.append(conversation)
        if step == "append":
            new = what
        elif step == "delete":
            new = [NewEvent(ConversationReactivated() if conversation in model.deleted else ConversationDeleted())]
        else:
            version = what % (len(model.events[conversation]) + 1)
            if conversation in model.deleted:
                with pytest.raises(ConversationIsDeleted):
                    await store.fork(conversation, version, tenant=tenant)
                continue
            result = await store.fork(conversation, version, tenant=tenant, events=[message("own")])
            fork = result.events[0].conversation_id
            order.append(fork)
            model.sources[fork] = (conversation, version)
            conversation, new = fork, []
        if step == "append" and conversation in model.deleted:
            continue
        if new:
            await store.append(conversation, new, tenant=tenant)
        if step == "delete":
            model.deleted ^= {conversation}
        model.events[conversation] = [event async for event in store.read(conversation, tenant=tenant)]
    return model


@pytest.mark.slow
@given(_steps, st.data())
@examples(20, phases=[Phase.generate])
async def test_forks_of_forks_equal_a_model(store: EventStore, steps: Any, data: st.DataObject) -> None:
    tenant = str(uuid4())
    model = await play(store, tenant, steps)
    await catch_up(store)
    reader, cache = Reader(store, tenant), ConversationCache(Reader(store, tenant))
    size, newest = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    for conversation in model.events:
        chain = model.folded(conversation)
        read = await reader.messages(conversation)
        assert [row_of(message) for message in read] == messages_of(chain)
        paged = [message async for message in all_items(reader.messages, conversation, limit=size, newest_first=newest)]
        assert paged == (read[::-1] if newest else read)
        tasks = await reader.tasks(conversation)
        assert read_tasks_of(tasks) == tasks_of(chain)
        paged_tasks = [task async for task in all_items(reader.tasks, conversation, limit=size, newest_first=newest)]
        assert paged_tasks == (tasks[::-1] if newest else tasks)
        trail = [event async for event in all_items(reader.history, conversation, limit=size, shared=True)]
        assert trail == [event for events in model.chain(conversation) for event in events]
        back = [e async for e in all_items(reader.history, conversation, limit=size, shared=True, newest_first=True)]
        assert back == trail[::-1]
        state = await cache.conversation(conversation)
        assert (list(state.messages), list(state.tasks)) == (read, tasks)
        assert state.conversation.message_count == sum(m.conversation_id == conversation for m in read)
        past = await reader.conversation_at(conversation, position=HIGHEST_POSITION)
        assert (list(past.messages), read_tasks_of(past.tasks)) == (read, read_tasks_of(tasks))
        version = data.draw(st.integers(1, len(model.events[conversation])))
        past = await reader.conversation_at(conversation, version=version)
        chain = model.folded(conversation, version)
        assert [row_of(message) for message in past.messages] == messages_of(chain)
        assert read_tasks_of(past.tasks) == tasks_of(chain)


async def test_a_fork_begins_with_what_it_shares_and_copies_nothing(store: EventStore, database_url: str) -> None:
    trip = await begun(store, "one", "two", "three")
    fork = await forked(store, trip, 3, "other")
    await store.append(trip, [message("later")])
    await catch_up(store)
    reader = Reader(store)
    assert await contents(reader, fork) == ["one", "two", "other"]
    assert await contents(reader, trip) == ["one", "two", "three", "later"]
    one, _, own = await reader.messages(fork)
    assert (one.conversation_id, one.version, own.conversation_id, own.version) == (trip, 2, fork, 2)
    row = await reader.conversation(fork)
    assert (row.forked_from, row.message_count, row.version) == ({"conversation_id": str(trip), "version": 3}, 1, 2)
    assert await contents(reader, fork, after_version=0) == ["other"]
    assert await reader.ancestry(fork) == [Ancestor(fork, 2), Ancestor(trip, 3)]
    # Lists of all conversations, and so searches and counts, have a message once, where it was written.
    assert sorted(await contents(reader, None)) == ["later", "one", "other", "three", "two"]  # type: ignore[arg-type]
    with open_as(database_url) as connection:
        [(copied,)] = connection.execute(
            "SELECT count(*) FROM events WHERE conversation_id = %s AND event_type <> 'conversation.forked'", [fork]
        ).fetchall()
    assert copied == 1


async def test_an_edited_message_takes_the_place_of_the_other_in_a_fork(store: EventStore) -> None:
    trip = await begun(store, "one", "two", "three")
    fork = await forked(store, trip, None, "four")
    await catch_up(store)
    reader = Reader(store)
    two = (await reader.messages(fork))[1]
    place = await reader.message_place(fork, two.id)
    assert place == (trip, two.version) == (two.conversation_id, two.version)
    edited = await forked(store, place.conversation_id, place.last_version - 1, "zwei")
    await catch_up(store)
    assert await contents(reader, edited) == ["one", "zwei"]
    with pytest.raises(NotFound, match="has no message"):
        await reader.message_place(edited, two.id)
    with pytest.raises(NotFound):
        await reader.message_place(uuid4(), two.id)


async def test_a_conversation_that_begins_with_a_message_can_be_forked_before_it(store: EventStore) -> None:
    trip = uuid4()
    await store.append(trip, [message("first")])
    fork = await forked(store, trip, 0, "instead")
    await catch_up(store)
    assert await contents(Reader(store), fork) == ["instead"]
    assert [m.content for m in (await Reader(store).conversation_at(fork, version=2)).messages] == ["instead"]


async def test_the_answer_to_a_message_is_a_fact_of_its_own_conversation(store: EventStore) -> None:
    trip = uuid4()
    asked = NewEvent(message("?", awaits_answer=True))
    await store.append(trip, [ConversationCreated(), asked])
    fork = await forked(store, trip)
    await store.append(trip, [MessageAnswered(message_id=asked.id, outcome="answered")])
    await catch_up(store)
    reader = Reader(store)
    assert [m.status for m in await reader.messages(trip)] == ["answered"]
    assert [m.status for m in await reader.messages(fork)] == [None]


async def test_a_shared_task_is_shown_as_it_was_and_continues_in_the_fork(store: EventStore) -> None:
    trip, task = uuid4(), uuid4()
    artifact = TaskArtifactAdded(task_id=task, artifact_id="a", parts=[{"text": "draft"}])
    await store.append(trip, [ConversationCreated(), TaskCreated(task_id=task, description="book"), artifact])
    fork = await forked(store, trip)
    later = uuid4()
    done = [TaskStatusChanged(task_id=task, status="completed"), TaskCreated(task_id=later, description="later")]
    await store.append(trip, done)
    await catch_up(store)
    reader = Reader(store)
    [shown] = await reader.tasks(fork)
    assert (shown.status, shown.conversation_id, shown.version, len(shown.artifacts)) == ("pending", trip, 3, 1)
    assert [each.status for each in await reader.tasks(fork, status="pending")] == ["pending"]
    assert await reader.tasks(fork, status="completed") == []
    await store.append(fork, [TaskStatusChanged(task_id=task, status="failed")])
    await catch_up(store)
    [shown] = await reader.tasks(fork)
    assert (shown.status, shown.description, shown.conversation_id, shown.version) == ("failed", "book", fork, 2)
    assert len(shown.artifacts) == 1
    assert [each.status for each in await reader.tasks(trip)] == ["completed", "pending"]


# Who may read what is shared


async def test_what_a_fork_shares_stays_under_the_rules_of_its_conversation(store: EventStore) -> None:
    trip = await begun(store, "secret", user="ana")
    with pytest.raises(NotFound):
        await forked(store, trip, user="bob")
    await store.append(trip, [ConversationShared(user="bob", access="read")], user="ana")
    fork = await forked(store, trip, None, "bob's", user="bob")
    await store.append(fork, [ConversationShared(user="eve", access="read")], user="bob")
    await catch_up(store)
    ana, bob, eve, tenant = (Reader(store, caller=store.caller(user=user)) for user in ("ana", "bob", "eve", None))
    cache = ConversationCache(bob)
    assert await contents(bob, fork) == await contents(tenant, fork) == ["secret", "bob's"]
    assert [m.content for m in (await cache.conversation(fork)).messages] == ["secret", "bob's"]
    # A member of the fork alone sees the fork's own messages; the owner of the conversation sees nothing of the fork.
    assert await contents(eve, fork) == ["bob's"]
    assert [m.content for m in (await eve.conversation_at(fork, version=2)).messages] == ["bob's"]
    assert {e.conversation_id for e in await eve.history(fork, shared=True)} == {fork}
    assert await eve.ancestry(fork) == [Ancestor(fork, 3)]
    assert await contents(ana, fork) == []
    with pytest.raises(NotFound):
        await ana.conversation_at(fork, version=1)
    with pytest.raises(NotFound):
        await forked(store, fork, user="ana")
    # A user who loses access to the conversation loses what the fork shares at once, from the cache as well.
    await store.append(trip, [ConversationUnshared(user="bob")], user="ana")
    assert await contents(bob, fork) == ["bob's"]
    assert [m.content for m in (await cache.conversation(fork)).messages] == ["bob's"]
    assert [m.content for m in (await bob.conversation_at(fork, version=2)).messages] == ["bob's"]


async def test_naming_a_conversation_as_the_source_does_not_show_it(store: EventStore) -> None:
    """An append by hand can name any source."""
    trip = await begun(store, "secret", user="ana")
    other = str(uuid4())
    foreign = await begun(store, "of another tenant", tenant=other)
    forks = [uuid4(), uuid4()]
    for fork, source in zip(forks, (trip, foreign), strict=True):
        await store.append(fork, [ConversationForked(source_conversation_id=source, source_version=9)], user="eve")
    await catch_up(store)
    for user in ("eve", None):
        reader = Reader(store, caller=store.caller(user=user))
        shown = [await contents(reader, fork) for fork in forks]
        past = [[m.content for m in (await reader.conversation_at(fork, version=1)).messages] for fork in forks]
        assert shown == past == [["secret"] if user is None else [], []]


async def test_a_deleted_conversation_hides_what_its_forks_share(store: EventStore) -> None:
    trip = await begun(store, "one")
    fork = await forked(store, trip, None, "two")
    last = await forked(store, fork, None, "three")
    deleted = await store.append(trip, [ConversationDeleted()])
    await catch_up(store)
    reader, cache = Reader(store), ConversationCache(Reader(store))
    assert await contents(reader, last) == ["two", "three"]
    assert [m.content for m in (await cache.conversation(last)).messages] == ["two", "three"]
    now = await reader.conversation_at(last, version=2)
    then = await reader.conversation_at(last, position=deleted.position - 1)
    assert [[m.content for m in state.messages] for state in (now, then)] == [["two", "three"], ["one", "two", "three"]]
    with pytest.raises(ConversationIsDeleted):
        await forked(store, trip)
    await store.append(trip, [ConversationReactivated()])
    await catch_up(store)
    assert await contents(reader, last) == ["one", "two", "three"]
    assert [m.content for m in (await cache.conversation(last)).messages] == ["one", "two", "three"]


async def test_conversations_that_name_each_other_end(store: EventStore) -> None:
    first, second = uuid4(), uuid4()
    for fork, source in ((first, second), (second, first), (third := uuid4(), third)):
        event = ConversationForked(source_conversation_id=source, source_version=10**18)
        await store.append(fork, [event, message(str(fork))])
    await catch_up(store)
    reader = Reader(store)
    assert await contents(reader, first) == [str(second), str(first)]
    assert await contents(reader, third) == [str(third)]
    assert len((await reader.conversation_at(first, version=2)).messages) == 2


# Forking


async def test_a_fork_needs_a_version_that_exists(store: EventStore) -> None:
    trip = await begun(store, "one")
    with pytest.raises(NotFound, match="at version 2: it has no version 3"):
        await store.fork(trip, 3)
    for wrong in (-1, "1", True, 2**31):
        with pytest.raises(InputError, match="version"):
            await store.fork(trip, wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="no conversation has the id"):
        await store.fork(uuid4())
    with pytest.raises(WrongExpectedVersion):
        await store.fork(trip, conversation_id=trip)


async def test_a_conversation_goes_on_while_it_is_forked(store: EventStore) -> None:
    trip = await begun(store, "0")
    numbers = range(1, 40)

    async def go_on() -> None:
        for number in numbers:
            await store.append(trip, [message(str(number))])

    async def fork() -> list[UUID]:
        return [await forked(store, trip, None, "own") for _ in numbers]

    _, forks = await asyncio.gather(go_on(), fork())
    await catch_up(store)
    reader = Reader(store)
    for each in forks:
        *shared, own = await contents(reader, each)
        version = (await reader.conversation(each)).forked_from["version"]  # type: ignore[index]
        assert (shared, own) == ([str(number) for number in range(version - 1)], "own")


async def test_a_fork_is_read_only_once_what_it_shares_is_there(store: EventStore) -> None:
    """The parts of the conversations that the workers follow advance separately."""
    trip = await begun(store, "one")
    fork = await store.fork(trip, events=[message("two")])
    reading = asyncio.create_task(contents(Reader(store), fork.events[0].conversation_id, at_least=fork.position))
    await catch_up(store)
    assert await reading == ["one", "two"]


@pytest.mark.slow
@pytest.mark.own_database
async def test_a_rebuild_leaves_what_forks_show(store: EventStore) -> None:
    trip, task = await begun(store, "one"), uuid4()
    await store.append(trip, [TaskCreated(task_id=task, description="x")])
    fork = await forked(store, trip, None, "two")
    await store.append(fork, [TaskStatusChanged(task_id=task, status="completed")])
    await catch_up(store)
    reader = Reader(store)
    before = await reader.messages(fork), await reader.tasks(fork), await reader.ancestry(fork)
    await rebuild(store)
    assert (await reader.messages(fork), await reader.tasks(fork), await reader.ancestry(fork)) == before
    assert [each.differences for each in await verify(store)] == [[]] * len(PROJECTIONS)


async def test_a_cursor_of_a_fork_outlasts_the_loss_of_what_it_shares(store: EventStore) -> None:
    trip = await begun(store, *map(str, range(5)))
    fork = await forked(store, trip, None, "a", "b", "c")
    await catch_up(store)
    reader = Reader(store)
    page = await reader.messages(fork, limit=6)
    await store.append(trip, [ConversationDeleted()])
    await catch_up(store)
    assert await contents(reader, fork, after=page.next) == ["b", "c"]
    with pytest.raises(InvalidCursor):
        await reader.messages(trip, after=page.next)


def test_synchronous_code_forks_reads_and_compares(settings: Settings) -> None:
    with SyncEventStore(settings) as store:
        trip = uuid4()
        store.append(trip, [ConversationCreated(), message("one")])
        fork = store.fork(trip, events=[message("two")]).events[0].conversation_id
        found = SyncReader(store).compare(trip, fork)
        assert [message.content for message in found.added] == ["two"]
        assert [event.version for event in store.replay(trip, speed=1000)] == [1, 2]


# Comparing


async def test_two_forks_are_compared(store: EventStore) -> None:
    trip, task, other = await begun(store, "one", "two"), uuid4(), uuid4()
    await store.append(trip, [TaskCreated(task_id=task, description="x")])
    first = await forked(store, trip, None, "a", name="A")
    second = await forked(store, trip, 4, "b", "c", name="B")
    await store.append(second, [TaskStatusChanged(task_id=task, status="failed"), TaskCreated(task_id=other)])
    found = await Reader(store).compare(first, second)
    assert found.shared == Ancestor(trip, 4)
    assert found.conversation == {"name": ("A", "B")}
    assert [[m.content for m in messages] for messages in (found.removed, found.added)] == [["a"], ["b", "c"]]
    assert (found.removed_tasks, [each.id for each in found.added_tasks]) == ((), [other])
    assert [(one.status, two.status) for one, two in found.changed_tasks] == [("pending", "failed")]
    assert found.changed == ()
    nothing = await Reader(store).compare(first, await begun(store))
    assert nothing.shared is None


async def test_two_versions_of_a_conversation_are_compared(store: EventStore) -> None:
    asked = NewEvent(message("?", awaits_answer=True))
    trip = await begun(store, "one")
    await store.append(trip, [asked, MessageAnswered(message_id=asked.id, outcome="answered"), message("last")])
    found = await Reader(store).compare(trip, version=3, second_version=5)
    assert found.shared == Ancestor(trip, 3)
    assert ([m.content for m in found.added], found.removed) == (["last"], ())
    assert [(one.status, two.status) for one, two in found.changed] == [("pending", "answered")]
    with pytest.raises(NotFound):
        await Reader(store).compare(trip, version=6)
