"""Imported conversations that the log holds already: their beginnings are compared, and only the rest is appended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from agent_manager.importers.chat_events import Conversation
from agent_manager.importers.source import IMPORTER
from eventstore import (
    ConversationCreated,
    ConversationRenamed,
    EventData,
    EventStore,
    MessageAdded,
    NewEvent,
    sent_message,
)
from eventstore.database.queries import query
from eventstore.errors import ConflictError, printable
from eventstore.ids import derived_uuid

_FIRST_EVENTS = query("agent_manager.importers", "first_events")
_NAMES = query("agent_manager.importers", "names")


class StartsDifferently(ConflictError):
    """The log holds another conversation under the same id. Nothing of this one was written."""


async def check_beginnings(store: EventStore, tenant: str, conversations: Sequence[Conversation]) -> None:
    """Check that each of these conversations is new, or was begun by an earlier import of it.

    A line may have lost its oldest messages, or have none yet. But if neither the line nor the log has the first
    message of the other, they are two conversations, whose messages would be mixed.
    """
    lines = {conversation.id: conversation for conversation in conversations}
    parameters = {
        "tenant": tenant,
        "conversations": list(lines),
        "messages": [line.events[1].id if line.messages else None for line in conversations],
    }
    rows = await store.log(store.caller(tenant)).fetch(_FIRST_EVENTS, parameters)
    for conversation_id, first, stored_message, has_first_message in rows:
        line, problem = lines[conversation_id], ""
        if first != line.events[0].id:
            problem = "is in the store already and was not imported from a chat log"
        elif (
            line.messages
            and not (stored_message is None or has_first_message)
            and not line.follows
            and stored_message not in {event.id for event in line.events} | line.other_messages
        ):
            problem = "begins with another message in the store"
        if problem:
            raise StartsDifferently(
                f"conversation {conversation_id} {problem}: give this one another id, or import into another tenant"
            )


async def continuation(store: EventStore, tenant: str, conversation: Conversation) -> Conversation:
    """Return a conversation without its first event, which the log holds, and with a renaming if its title is another.

    The stored conversation may have been given another id: a text, and this one the UUID derived from it.
    """
    created = conversation.events[0].data
    assert isinstance(created, ConversationCreated)
    [stored] = [event async for event in store.read(conversation.id, limit=1, tenant=tenant)]
    if stored.content.get("given_id") != created.given_id:
        given_id = stored.content.get("given_id") or str(conversation.id)
        raise StartsDifferently(
            f"its UUID is that of the stored conversation {printable(given_id)!r}: give it another id"
        )
    known = {conversation.events[0].id}
    if conversation.is_export:
        ours = {event.id: event.data for event in conversation.events}
        async for event in store.read(conversation.id, tenant=tenant):
            if event.id in ours and _is_same_message(event.data, ours[event.id]):
                known.add(event.id)
    parts = [[event for event in part if event.id not in known] for part in conversation.parts]
    for _, named_by, name, _ in await names_of(store, tenant, [conversation.id]):
        if name != created.name:
            parts[0].insert(0, renaming(tenant, conversation, named_by))
    number = sum(event.id in known for event in conversation.events[1:])
    return replace(conversation, parts=[part for part in parts if part], known_events=number)


def _is_same_message(stored: object, event: EventData) -> bool:
    """Return whether two events with one id hold the same message, apart from what surrounds it in an export."""
    if not isinstance(stored, MessageAdded) or not isinstance(event, MessageAdded):
        return True  # derived from a message
    return {**sent_message(stored), "export": None} == {**sent_message(event), "export": None}


async def names_of(store: EventStore, tenant: str, conversations: Sequence[UUID]) -> Sequence[tuple[Any, ...]]:
    """Return, of each conversation, its id, and the id, the name and the actor of the event that named it last."""
    if not conversations:
        return []
    parameters = {"tenant": tenant, "conversations": list(conversations)}
    return await store.log(store.caller(tenant)).fetch(_NAMES, parameters)


def renaming(tenant: str, conversation: Conversation, named_by: UUID) -> NewEvent:
    """Return the event that renames a conversation to the title of its line.

    Its id is made of that of the event that gave the present name, so that a name can be given again after another one.
    """
    created = conversation.events[0].data
    assert isinstance(created, ConversationCreated)
    renamed_id = derived_uuid("import", tenant, str(conversation.id), "renamed", created.name, str(named_by))
    return NewEvent(ConversationRenamed(name=created.name), renamed_id, IMPORTER)
