"""Conversations of the log that are not those of the lines which have their ids."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from agent_manager.importing.chatlog import Conversation
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import ConflictError

_FIRST_EVENTS = query("agent_manager.importing", "first_events")


class BegunElsewhere(ConflictError):
    """The log holds another conversation of this id. Nothing of the line was written."""


async def check_beginnings(store: EventStore, tenant: str, conversations: Sequence[Conversation]) -> None:
    """Check that each of these conversations is new, or was begun by an earlier import of it.

    A line may have lost its oldest messages, or have none yet. But if neither the line nor the log has the first
    message of the other, they are two conversations.

    Raises:
        BegunElsewhere: one of them is another: its messages would be mixed with those of the line.
    """
    lines = {conversation.id: conversation for conversation in conversations}
    given = {
        "tenant": tenant,
        "conversations": list(lines),
        "messages": [_first_message(conversation) for conversation in conversations],
    }
    for conversation_id, first, message, has_ours in await store.log(store.caller(tenant)).fetch(_FIRST_EVENTS, given):
        line = lines[conversation_id]
        if first != line.events[0].id:
            raise BegunElsewhere(
                f"conversation {conversation_id} is in the store already and was not imported from a chat log: "
                "give this one another id, or import into another tenant"
            )
        is_continued = message is None or has_ours or message in {event.id for event in line.events}
        if line.messages and not is_continued:
            raise BegunElsewhere(
                f"conversation {conversation_id} begins with another message in the store: "
                "give this one another id, or import into another tenant"
            )


def _first_message(conversation: Conversation) -> UUID | None:
    return conversation.events[1].id if conversation.messages else None
