"""The threads of LangGraph that a process has read, and the values and messages in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any
from uuid import UUID

from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg.types.numeric import Int8

from agent_manager.adapters.blobs import load_blob, load_files, referred
from agent_manager.adapters.langgraph_messages import EXTRA, as_written, message_data, message_digest, message_files
from agent_manager.adapters.langgraph_thread import Thread, Value
from agent_manager.adapters.langgraph_trees import Tree, decode, references
from eventstore import Caller, Event, EventStore, MessageAdded, conversation_uuid
from eventstore.database.queries import query
from eventstore.event_types import RECEIPTS
from eventstore.read import RawRows

_PACKAGE = "agent_manager.adapters"
_PAGE_EVENTS = 1000
_CACHED_BYTES = 64 * 1024 * 1024
"""Size of the threads that are kept, so that a step need not read what it differs from."""


class Threads:
    """The threads that a caller may see; those that were used last are kept."""

    def __init__(self, store: EventStore, caller: Caller) -> None:
        self._store = store
        self._caller = caller
        self._threads: OrderedDict[UUID, Thread] = OrderedDict()

    async def thread(self, thread_id: object, *, is_current: bool = True) -> Thread:
        """Return a thread; if it need not be current, perhaps without the latest events."""
        thread = await self.conversation(conversation_uuid(self._caller.tenant, str(thread_id)), is_current)
        thread.given_id = thread.given_id or str(thread_id)
        return thread

    async def conversation(self, conversation_id: UUID, is_current: bool = True) -> Thread:
        """Return the thread of a conversation."""
        thread = self._threads.get(conversation_id)
        if thread is None:
            thread = self._threads[conversation_id] = Thread(conversation_id)
            is_current = True
        self._threads.move_to_end(conversation_id)
        if is_current:
            await self.catch_up(thread)
        total = sum(each.weight for each in self._threads.values())
        while total > _CACHED_BYTES and len(self._threads) > 1:
            total -= self._threads.popitem(last=False)[1].weight
        return thread

    async def catch_up(self, thread: Thread) -> None:
        """Apply what was added to a thread since it was read; forget it if the user may not see it any more."""
        view = self._store.log(self._caller)
        parameters = {"tenant": self._caller.tenant, "conversation_id": thread.conversation_id}
        is_known = thread.version > 0
        while True:
            is_seen = self._caller.user is None or not is_known  # otherwise the last known event shows it
            page = {"after": Int8(thread.version if is_seen else thread.version - 1), "limit": Int8(_PAGE_EVENTS)}
            rows = await view.fetch(query(_PACKAGE, "thread_events"), parameters | page, cursor=RawRows)
            events = [Event.from_row(row) for row in rows]
            is_new = [event.version > thread.version for event in events]
            has_erased = any(event.event_type in RECEIPTS for event in compress(events, is_new))
            if is_known and (has_erased or not (is_seen or rows)):
                is_known = False  # what is known holds what was erased, or may not be seen
                thread.forget()
                continue
            for event in events:
                writes = event.raw_metadata.get(EXTRA) if event.event_type == "message.added" else None
                thread.apply(
                    event.version,
                    event.id,
                    event.event_type,
                    event.content,
                    event.size,
                    writes,
                    is_erased=event.is_erased,
                )
            if len(rows) < _PAGE_EVENTS:
                return

    async def read(self, thread: Thread, wanted: Iterable[UUID | str]) -> None:
        """Read the payloads that are wanted, and those that these refer to."""
        while missing := [each for each in wanted if each not in thread.payloads]:
            await self._read_files(thread, missing)
            ids = [each for each in missing if isinstance(each, UUID)]
            if not ids:
                return
            parameters = {
                "tenant": self._caller.tenant,
                "conversation_id": thread.conversation_id,
                "versions": [thread.payload_versions[each] for each in ids],
            }
            view = self._store.log(self._caller)
            rows = await view.fetch(query(_PACKAGE, "thread_payloads"), parameters, cursor=RawRows)
            read = {event.id: event for event in map(Event.from_row, rows)}
            messages = [event.data for event in read.values() if isinstance(event.data, MessageAdded)]
            parts = [each.parts for each in messages if each.parts]
            await load_files(self._store, parts, thread.conversation_id, tenant=self._caller.tenant)
            await self._read_files(thread, {name for each in messages for name in message_files(each)})
            for event in read.values():
                if event.is_erased:
                    _keep_erased(thread, event)
                else:
                    keep_payload(thread, event.id, event.data, event.size)
            wanted = [each for event_id in ids for each in references(thread.payloads[event_id])]

    async def _read_files(self, thread: Thread, names: Iterable[UUID | str]) -> None:
        for name in names:
            if isinstance(name, str) and name not in thread.payloads:
                content = await load_blob(
                    self._store, referred(name), thread.conversation_id, tenant=self._caller.tenant
                )
                thread.keep_payload(name, content, len(content))

    async def wholes(self, thread: Thread, values: Iterable[Value]) -> Sequence[Tree]:
        """Return complete values."""
        values = tuple(values)
        while unread := thread.unread(values):
            await self.read(thread, unread)
        return [thread.whole(value) for value in values]

    async def decoded(self, thread: Thread, values: Iterable[Value], serde: SerializerProtocol) -> Sequence[Any]:
        """Return the values of channels as LangGraph's serializer restores them."""
        wholes = await self.wholes(thread, values)
        await self.read(thread, {each for whole in wholes for each in references(whole)})
        return [decode(whole, serde, thread.payloads) for whole in wholes]


def keep_payload(thread: Thread, event_id: UUID, data: Any, size: int) -> None:
    """Keep the message or the large value of an event, whose content has a size."""
    if isinstance(data, MessageAdded):
        message = message_data(data, thread.payloads)
        thread.keep_payload(event_id, message, len(message))
    else:
        thread.keep_payload(event_id, data.content, size)


def _keep_erased(thread: Thread, event: Event) -> None:
    """Keep what stands for an erased value, null, or for a message: one without content that has the event's id."""
    if not isinstance(event.data, MessageAdded):
        thread.keep_payload(event.id, None, 0)
        return
    message = message_data(event.data.model_copy(update={"given_id": str(event.id)}), thread.payloads)
    thread.keep_payload(event.id, message, len(message))
    thread.message_ids[message_digest(as_written(message))] = event.id
