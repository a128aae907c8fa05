"""The histories of frameworks: conversations that are read from their end down to their last deletion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.types.numeric import Int4

from agent_manager.adapters.blobs import files_in, load_files, referring, store_files
from agent_manager.adapters.message_forms import storable
from agent_manager.adapters.store_access import StoreAccess, beginning, restart
from agent_manager.adapters.tool_calls import tasks_of_calls
from eventstore import (
    ANY,
    EXISTS,
    NO_STREAM,
    AppendResult,
    Caller,
    ConversationDeleted,
    ExpectedVersion,
    MessageAdded,
    NewEvent,
    TaskArtifactAdded,
    conversation_uuid,
)
from eventstore.append import encode_expected
from eventstore.database.queries import query
from eventstore.errors import ConversationIsDeleted, WrongExpectedVersion
from eventstore.events import HIGHEST_VERSION
from eventstore.json_text import from_json
from eventstore.member_order import restore, restore_members
from eventstore.read import RawRows
from projections.conversation_snapshot import shared_then

_LATEST_EVENTS, _DELETED_VERSION = (
    query("agent_manager.adapters", name) for name in ("latest_events", "deleted_version")
)
_PAGE = 2000
"""Events that one statement reads at most."""
_WITH_PARTS = ("message.added", "task.artifact_added")
"""The types of the events that adapters store with parts."""
_MORE_EVENTS = 16
"""Events that a read of the latest items fetches beyond them, for those that are not items."""


class HistoryAccess(StoreAccess):
    """The histories of a framework, by its own ids."""

    def conversation_id(self, given_id: str) -> UUID:
        """Return the id of the conversation that has an id of the framework."""
        return _named(self.store.tenant, given_id)[0]

    async def extend(
        self, given_id: str, events: Sequence[NewEvent], user: str | None, expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """Append to the conversation that has an id of the framework; begin it, or reactivate it, if necessary.

        Large files are stored beside the events (:mod:`agent_manager.adapters.blobs`).
        """
        conversation_id, begin = _named(self.store.tenant, given_id)
        events = [await self._without_large_files(event, conversation_id) for event in events]
        caller = self.store.caller(user=user)
        may_begin = expected == ANY or encode_expected(expected) == encode_expected(NO_STREAM)
        while True:
            with suppress(ConversationIsDeleted):
                return await self.append(caller, conversation_id, events, expected, begin=begin if may_begin else None)
            version = await self._deleted_version(conversation_id, caller) if expected == ANY else expected
            if version is None:  # another writer has begun it again
                continue
            try:
                return await self.append(caller, conversation_id, [*restart(), *events], version)
            except WrongExpectedVersion:  # another writer begins it again at the same time
                if expected != ANY:
                    raise

    async def _without_large_files(self, event: NewEvent, conversation_id: UUID) -> NewEvent:
        data = event.data
        if not isinstance(data, MessageAdded | TaskArtifactAdded) or not data.parts:
            return event
        parts = await store_files(self.store, data.parts, conversation_id)
        metadata = referring(event.metadata, files_in(parts))
        return replace(event, data=data.model_copy(update={"parts": parts}), metadata=metadata)

    async def delete(self, given_id: str, user: str | None) -> None:
        """Delete a conversation; do nothing if it never began, or is deleted already."""
        deleted, caller = NewEvent(ConversationDeleted()), self.store.caller(user=user)
        with suppress(WrongExpectedVersion, ConversationIsDeleted):
            await self.append(caller, self.conversation_id(given_id), [deleted], EXISTS)

    async def events(
        self, given_id: str, user: str | None, wanted: int | None = None
    ) -> AsyncGenerator[StoredEvent, None]:
        """Yield the events that a conversation shows, the latest first; none if it is deleted.

        A fork goes on with those that it shares.

        Args:
            wanted: how many the caller will look at, as far as it knows; None for all.
        """
        caller, conversation_id = self.store.caller(user=user), self.conversation_id(given_id)
        is_fork = False
        async for event in self._events_of(caller, conversation_id, HIGHEST_VERSION, wanted):
            is_fork = is_fork or event.event_type == "conversation.forked"
            yield event
        for source in await shared_then(self.store, caller, conversation_id, {}) if is_fork else ():
            async for event in self._events_of(caller, source.conversation_id, source.last_version, wanted):
                yield event._replace(is_shared=True)

    async def _events_of(
        self, caller: Caller, conversation_id: UUID, until_version: int, wanted: int | None
    ) -> AsyncGenerator[StoredEvent, None]:
        """Yield the events of a conversation up to a version that it does not hide, the latest first."""
        log = self.store.log(caller)
        limit = _PAGE if wanted is None else min(wanted + _MORE_EVENTS, _PAGE)
        parameters = {"tenant": self.store.tenant, "conversation_id": conversation_id}
        last = hidden_from = HIGHEST_VERSION  # later versions may hide earlier ones
        is_reactivated = False
        while last:
            page = {"last": Int4(last), "limit": Int4(limit)}
            rows = await log.fetch(_LATEST_EVENTS, parameters | page, cursor=RawRows)
            for event_id, version, event_type, content, order in rows:
                is_hidden = version >= hidden_from or version > until_version
                is_reactivated = is_reactivated or event_type == "conversation.reactivated"
                if event_type == "conversation.rewound":
                    hidden_from = min(hidden_from, _content(content, order)["to_version"] + 1)
                if is_hidden:
                    continue
                event = StoredEvent(version, event_type, _content(content, order), event_id)
                if event_type in _WITH_PARTS and isinstance(parts := event.content.get("parts"), list):
                    await load_files(self.store, [parts], conversation_id)
                yield event
                if hidden_from == 1 or (event_type == "conversation.deleted" and not is_reactivated):
                    return
            if len(rows) < limit:
                return
            last, limit = rows[-1][1] - 1, min(2 * limit, _PAGE)

    async def tasks_of(self, given_id: str, call_ids: Iterable[str], user: str | None) -> dict[str, UUID]:
        """Return the latest tasks of calls of tools by the ids of the calls; those without one are left out."""
        wanted = {call_id: storable(call_id) for call_id in call_ids}
        caller = self.store.caller(user=user)
        tasks = await tasks_of_calls(self.store, caller, self.conversation_id(given_id), wanted.values())
        return {call_id: tasks[stored][0] for call_id, stored in wanted.items() if stored in tasks}

    async def _deleted_version(self, conversation_id: UUID, caller: Caller) -> int | None:
        given = {"tenant": caller.tenant, "conversation_id": conversation_id}
        rows = await self.store.log(caller).fetch(_DELETED_VERSION, given)
        return int(rows[0][0]) if rows else None


class StoredEvent(NamedTuple):
    """An event as the adapters read it: its content is plain JSON, with the members in their order.

    Attributes:
        is_shared: whether it is an event of the conversation from which this one was forked.
    """

    version: int
    event_type: str
    content: Any
    id: UUID
    is_shared: bool = False


def _content(content: bytes, order: bytes | None) -> Any:
    value = from_json(content[1:])  # after the number of the binary format
    if order is not None:
        orders = from_json(order[1:])
        if isinstance(orders, dict):
            restore_members(value, orders)
        else:
            restore(value, orders)
    return value


@lru_cache(maxsize=1024)
def _named(tenant: str, given_id: str) -> tuple[UUID, NewEvent]:
    """Return the conversation that has an id of the framework, and the event that begins it."""
    conversation_id = conversation_uuid(tenant, given_id)
    return conversation_id, beginning(conversation_id, given_id)
