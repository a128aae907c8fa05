"""Finding the place of a message for an edit, and comparing conversations, such as a fork with what it continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventstore.database.queries import query
from eventstore.errors import NotFound
from eventstore.events import HIGHEST_POSITION, HIGHEST_VERSION
from eventstore.ids import parse_uuid
from projections.conversation_snapshot import Ancestor, ConversationState, shared_then
from projections.rows import Conversation, Message, Task

if TYPE_CHECKING:
    from projections.reading import Reader

_MESSAGE_PLACE = query("projections", "message_place")
_COMPARED = ("name", "metadata", "is_active", "is_deleted")


async def message_place(reader: Reader, conversation_id: UUID, message: UUID | str) -> Ancestor:
    """See :meth:`projections.Reader.message_place`."""
    shared = await shared_then(reader.store, reader.caller, conversation_id, {})
    shown = dict([Ancestor(conversation_id, HIGHEST_VERSION), *shared])
    given = {"tenant": reader.tenant, "ids": list(shown), "message": parse_uuid(message, "message")}
    rows = await reader.store.log(reader.caller).fetch(_MESSAGE_PLACE, given)
    places = [place for place in (Ancestor(*row) for row in rows) if place.last_version <= shown[place.conversation_id]]
    if not places:
        raise NotFound(f"conversation {conversation_id} has no message {message}: its list of messages shows their ids")
    return places[0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two conversations, or between two versions of one.

    Attributes:
        first, second: the conversations as they were compared.
        shared: the last conversation that both show, and the version up to which; None if they have nothing in common.
        conversation: the values of the members that differ, by name.
        removed, added: the messages that only the first, or only the second, shows.
        changed: the messages that both show, whose answer differs.
        removed_tasks, added_tasks: the tasks that only the first, or only the second, shows.
        changed_tasks: the tasks that both show, in another state.
    """

    first: Conversation
    second: Conversation
    shared: Ancestor | None
    conversation: dict[str, tuple[Any, Any]]
    removed: tuple[Message, ...]
    added: tuple[Message, ...]
    changed: tuple[tuple[Message, Message], ...]
    removed_tasks: tuple[Task, ...]
    added_tasks: tuple[Task, ...]
    changed_tasks: tuple[tuple[Task, Task], ...]


async def compare(
    reader: Reader,
    first: UUID | str,
    second: UUID | str | None,
    version: int | None,
    second_version: int | None,
) -> Comparison:
    """See :meth:`projections.Reader.compare`."""
    states, chains = [], []
    for conversation, at in ((first, version), (first if second is None else second, second_version)):
        position = HIGHEST_POSITION if at is None else None
        state = await reader.conversation_at(conversation, version=at, position=position)
        shared = await shared_then(reader.store, reader.caller, state.conversation.id, {})
        states.append(state)
        chains.append([Ancestor(state.conversation.id, state.version), *shared])
    return _compared(states[0], states[1], _last_shared(*chains))


def _last_shared(first: Sequence[Ancestor], second: Sequence[Ancestor]) -> Ancestor | None:
    of_second = dict(second)
    for conversation_id, version in first:
        if conversation_id in of_second:
            return Ancestor(conversation_id, min(version, of_second[conversation_id]))
    return None


def _compared(first: ConversationState, second: ConversationState, shared: Ancestor | None) -> Comparison:
    members = {name: (getattr(first.conversation, name), getattr(second.conversation, name)) for name in _COMPARED}
    messages = [{(row.conversation_id, row.id): row for row in state.messages} for state in (first, second)]
    tasks = [{row.id: row for row in state.tasks} for state in (first, second)]
    # Whether a message was answered is known only in the conversation in which it was written.
    are_same = first.conversation.id == second.conversation.id
    return Comparison(
        first.conversation,
        second.conversation,
        shared,
        {name: values for name, values in members.items() if values[0] != values[1]},
        tuple(row for key, row in messages[0].items() if key not in messages[1]),
        tuple(row for key, row in messages[1].items() if key not in messages[0]),
        tuple(
            (row, messages[1][key])
            for key, row in messages[0].items()
            if are_same and key in messages[1] and row != messages[1][key]
        ),
        tuple(row for key, row in tasks[0].items() if key not in tasks[1]),
        tuple(row for key, row in tasks[1].items() if key not in tasks[0]),
        tuple((row, tasks[1][key]) for key, row in tasks[0].items() if key in tasks[1] and row != tasks[1][key]),
    )
