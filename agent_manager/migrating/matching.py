"""Which messages and tasks of a source the store has already, and under which ids the others go in.

Ids repeat, so a message is known by its id and by what it holds: the second of the same id and content is the second
in the store too. What is new becomes the next occurrence of its id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from uuid import UUID

from agent_manager.migrating.files import same_but_for_files, same_but_for_names
from agent_manager.migrating.source import SourceConversation, SourceMessage
from agent_manager.migrating.stored import Stored
from agent_manager.migrating.wire import Json, canonical_message, canonical_task, message_id, text_member
from eventstore import IdAssigner
from eventstore.jsontext import equal


def matches(messages: Sequence[SourceMessage], sent: Sequence[Json]) -> list[int | None]:
    """For each message the place of the one among ``sent`` that it is; no place twice."""
    free: dict[str, list[int]] = {}
    for place, one in enumerate(sent):
        free.setdefault(message_id(one), []).append(place)
    found: list[int | None] = []
    for sought in messages:
        candidates = free.get(message_id(sought.wire), [])
        known = next((place for place in candidates if is_same(sent[place], sought)), None)
        if known is not None:
            candidates.remove(known)
        found.append(known)
    return found


def is_same(sent: Json, message: SourceMessage) -> bool:
    """Whether a stored message is this one."""
    sent, wire = canonical_message(sent), message.wire
    return equal(sent, wire) or same_but_for_files(sent, wire, message.fetched)


def is_same_task(stored: Json, source: SourceConversation, place: int) -> bool:
    """Whether a stored task is the source's in that place."""
    stored, task = canonical_task(stored), source.tasks[place]
    return equal(stored, task) or (place in source.fetched_tasks and same_but_for_names(stored, task))


class MessageIds:
    """Gives ids to the messages that come after those which a conversation has."""

    def __init__(self, tenant: str, stored: Stored) -> None:
        self._assigner = IdAssigner(tenant, stored.id, "message")
        self._taken = Counter(event.event_id for event in stored.messages)
        for message in stored.messages:
            self._assigner.assign(message_id(message.sent))

    def next(self, wire: Json) -> UUID:
        """The id of the next message."""
        while (assigned := self._assigner.assign(message_id(wire))) in self._taken:
            pass  # whoever stored that one counted otherwise
        return assigned


def task_ids(source: SourceConversation, tenant: str, conversation_id: UUID) -> Iterator[tuple[UUID, Json]]:
    """The tasks of a source with their ids: the second of one name is the second in the store."""
    assigner = IdAssigner(tenant, conversation_id, "task")
    for task in source.tasks:
        yield assigner.assign(text_member(task, "id")), task
