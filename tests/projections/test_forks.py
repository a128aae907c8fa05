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
from projections import ConversationCache, Message, Reader, all_items, catch_up, rebuild, verify
from projections.conversation_snapshot import Ancestor

pytestmark = pytest.mark.shared_database


def said(text: str, **more: Any) -> MessageAdded:
    return MessageAdded(role="user", content=text, **more)


async def begun(store: EventStore, *texts: str, **caller: Any) -> UUID:
    """A conversation with these messages, from version 2 on."""
    conversation = uuid4()
    await store.append(conversation, [ConversationCreated(name="trip"), *map(said, texts)], **caller)
    return conversation


async def forked(store: EventStore, source: UUID, version: int | None = None, *texts: str, **more: Any) -> UUID:
    result = await store.fork(source, version, events=[said(text) for text in texts], **more)
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


_UNANSWERED = {"status": None, "error": None}


def messages_of(chain: list[list[Event]]) -> list[dict[str, Any]]:
    *shared, own = chain
    rows = [row | _UNANSWERED for events in shared for row in (modelled(events)[1] if events else [])]
    return rows + modelled(own)[1]


def tasks_of(chain: list[list[Event]]) -> list[tuple[dict[str, Any], Any]]:
    """Those of one conversation with all these events."""
    joined = [
        Event(
            event.position, event.timestamp, number, event.schema_version, chain[-1][0].conversation_id, event.id,
            event.tenant_id, event.event_type, event.actor, event.content, event.raw_metadata, None, b"",
        )
        for number, event in enumerate((event for events in chain for event in events), 1)
    ]  # fmt: skip
    _, _, tasks, artifacts = modelled(joined)
    return [(_without_place(task), chunks) for task, chunks in zip(tasks, artifacts, strict=True)]


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
    for step, number, what in [("append", 0, [NewEvent(said("first"))]), *steps]:
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
            result = await store.fork(conversation, version, tenant=tenant, events=[said("own")])
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


@given(_steps, st.data())
@examples(40, phases=[Phase.generate])
async def test_forks_of_forks_equal_a_model(store: EventStore, steps: Any, data: st.DataObject) -> None:
    tenant = str(uuid4())
    model = await play(store, tenant, steps)
    await catch_up(store)
    reader, cache = Reader(store, tenant), ConversationCache(Reader(store, tenant))
    size, newest = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    for conversation in model.events:
        chain = model.chain(conversation)
        read = await reader.messages(conversation)
        assert [row_of(message) for message in read] == messages_of(chain)
        paged = [message async for message in all_items(reader.messages, conversation, limit=size, newest_first=newest)]
        assert paged == (read[::-1] if newest else read)
        tasks = await reader.tasks(conversation)
        assert read_tasks_of(tasks) == tasks_of(chain)
        paged_tasks = [task async for task in all_items(reader.tasks, conversation, limit=size, newest_first=newest)]
        assert paged_tasks == (tasks[::-1] if newest else tasks)
        trail = [event async for event in all_items(reader.history, conversation, limit=size, shared=True)]
        assert trail == [event for events in chain for event in events]
        back = [e async for e in all_items(reader.history, conversation, limit=size, shared=True, newest_first=True)]
        assert back == trail[::-1]
        state = await cache.conversation(conversation)
        assert (list(state.messages), list(state.tasks)) == (read, tasks)
        assert state.conversation.message_count == sum(m.conversation_id == conversation for m in read)
        past = await reader.conversation_at(conversation, position=HIGHEST_POSITION)
        assert (list(past.messages), read_tasks_of(past.tasks)) == (read, read_tasks_of(tasks))
        version = data.draw(st.integers(1, len(model.events[conversation])))
        past = await reader.conversation_at(conversation, version=version)
        chain = model.chain(conversation, version)
        assert [row_of(message) for message in past.messages] == messages_of(chain)
        assert read_tasks_of(past.tasks) == tasks_of(chain)
