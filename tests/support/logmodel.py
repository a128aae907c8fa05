"""The log as a list: what appends must do, in a few lines that can be seen to be right; and appends to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from eventstore import (
    ANY,
    EXISTS,
    NO_STREAM,
    Append,
    ConversationDeleted,
    ConversationReactivated,
    Event,
    ExpectedVersion,
    MessageAnswered,
    Metadata,
    NewEvent,
)
from eventstore.errors import ConflictError, ConversationIsDeleted, EventIdConflict, WrongExpectedVersion
from eventstore.member_order import MEMBER
from support.raw import note
from support.values import json_values

CONVERSATIONS = [UUID(int=n) for n in range(1, 4)]
IDS = [UUID(int=n) for n in range(100, 112)]

_notes = st.builds(note, st.integers(0, 2) | json_values, st.sampled_from(["red", "blue"]))
_lifecycle = st.sampled_from(
    [ConversationDeleted(), ConversationReactivated(), MessageAnswered(message_id=IDS[0], outcome="failed")]
)
events = st.builds(
    lambda data, id, actor, about: NewEvent(data, id, actor, Metadata(**about)),
    st.one_of(_notes, _notes, _notes, _lifecycle),
    st.sampled_from(IDS) | st.uuids(version=4),
    st.sampled_from(["", "ana"]),
    st.sampled_from([{}, {}, {"correlation_id": "c"}, {"own": 1}]),
)
expectations = st.sampled_from([ANY, ANY, EXISTS, NO_STREAM]) | st.integers(0, 6)
appends = st.lists(
    st.builds(
        Append,
        st.sampled_from(CONVERSATIONS),
        st.lists(events, min_size=1, max_size=4, unique_by=lambda event: event.id),
        expectations,
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda append: append.conversation_id,
)
repeats = st.integers(0, 20)
"""Repeats the append of that number, however it went."""


@dataclass
class Stored:
    """An event of the model."""

    conversation: UUID
    version: int
    event: NewEvent

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.conversation, self.version, self.event.id, *shape(self.event))


@dataclass
class Model:
    """The log as a list."""

    log: list[Stored] = field(default_factory=list)

    def conversation(self, conversation: UUID | str) -> list[Stored]:
        return [stored for stored in self.log if stored.conversation == conversation]

    def append(self, batch: Sequence[Append]) -> list[tuple[int, bool]] | type[ConflictError]:
        """The version of each event and whether it is new, or the error."""
        there = {
            append.conversation_id: {s.event.id: s for s in self.conversation(append.conversation_id)}
            for append in batch
        }
        for append in batch:
            for event in append.events:
                assert isinstance(event, NewEvent)
                known = there[append.conversation_id].get(event.id)
                if known is not None and shape(known.event) != shape(event):
                    return EventIdConflict
        for append in batch:
            found = there[append.conversation_id]
            new = [event for event in append.events if event.id not in found]  # type: ignore[union-attr]
            if not _fits_deletion([stored.event for stored in found.values()], new):  # type: ignore[arg-type]
                return ConversationIsDeleted
        for append in batch:
            found = there[append.conversation_id]
            something_new = any(event.id not in found for event in append.events)  # type: ignore[union-attr]
            if something_new and not _fits(append.expected, len(found)):
                return WrongExpectedVersion
        result = []
        for append in batch:
            found = there[append.conversation_id]
            version = len(found)
            for event in append.events:
                assert isinstance(event, NewEvent)
                if event.id in found:
                    result.append((found[event.id].version, False))
                else:
                    version += 1
                    self.log.append(Stored(UUID(str(append.conversation_id)), version, event))
                    result.append((version, True))
        return result


def shape(event: NewEvent) -> tuple[Any, ...]:
    """Return the members in which two equal events agree."""
    # JSON has one kind of number and no kinds of truth for it: 1 and 1.0 are equal, 1 and true are not.
    about = comparable(event.metadata.to_content())
    return (event.data.event_type, event.actor, comparable(event.data.to_content()), about)


def found_shape(event: Event) -> tuple[Any, ...]:
    """The shape of an event that was read."""
    about = {name: value for name, value in event.raw_metadata.items() if name != MEMBER}
    return (event.event_type, event.actor, comparable(event.content), comparable(about))


def comparable(value: Any) -> Any:
    """The value such that it is equal to those that JSON cannot tell from it, and to no other."""
    if isinstance(value, dict):
        return ("object", frozenset((key, comparable(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("array", tuple(map(comparable, value)))
    return (isinstance(value, bool), value)


def _fits_deletion(before: Sequence[NewEvent], new: Sequence[NewEvent]) -> bool:
    """Return whether a conversation accepts further events, each in its turn."""
    accepted, is_deleted = ("conversation.reactivated", "message.answered"), False
    for number, event_type in enumerate(event.data.event_type for event in (*before, *new)):
        if is_deleted and event_type not in accepted and number >= len(before):
            return False
        if event_type in ("conversation.deleted", "conversation.reactivated"):
            is_deleted = event_type == "conversation.deleted"
    return True


def _fits(expected: ExpectedVersion, version: int) -> bool:
    if expected == ANY:
        return True
    if expected == EXISTS:
        return version > 0
    return version == (0 if expected == NO_STREAM else expected)
