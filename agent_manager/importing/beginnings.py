"""Conversations of the log that something else began than the line which has their id."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from agent_manager.importing.chatlog import Conversation
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import ConflictError

_FIRST_EVENTS = query("agent_manager.importing", "first_events")


class BegunElsewhere(ConflictError):
    """The log holds a conversation of this id that was not imported from a chat log."""


async def check_beginnings(store: EventStore, tenant: str, conversations: Sequence[Conversation]) -> None:
    """Check that each of these conversations is new, or was begun by an earlier import of it.

    Raises:
        BegunElsewhere: one of them is neither: its messages would be mixed with those of another.
    """
    ids = [conversation.id for conversation in conversations]
    given = {"tenant": tenant, "conversations": ids}
    rows = await store.log(store.caller(tenant)).fetch(_FIRST_EVENTS, given)
    first: dict[UUID, UUID] = dict(rows)
    for conversation in conversations:
        if first.get(conversation.id) not in (None, conversation.events[0].id):
            raise BegunElsewhere(
                f"conversation {conversation.id} is in the store already and was not imported from a chat log: "
                "give this one another id, or import into another tenant"
            )
