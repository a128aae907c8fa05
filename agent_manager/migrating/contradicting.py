"""Conversations of a source that the store holds under the same identity, but with another beginning.

A source is read again and again, and only what is new goes in. That is safe only if what the store holds under a
conversation's id is that conversation: not one of another source or user, nor one that was deleted at its source and
begun again. Such a conversation would be continued by the messages of another, for good. So all conversations are
compared before anything is written.
"""

from __future__ import annotations

from collections import Counter

from agent_manager.migrating.matching import matches
from agent_manager.migrating.naming import full_name
from agent_manager.migrating.source import SourceConversation
from agent_manager.migrating.stored import Stored
from agent_manager.migrating.wire import Json, message_id
from eventstore.errors import ConflictError, printable
from eventstore.jsontext import equal

_NAMED = 5


class SourceContradictsStore(ConflictError):
    """A source has conversations that begin otherwise than the stored ones of their ids. Nothing was written."""

    def __init__(self, reasons: list[str]) -> None:
        more = f", and {len(reasons) - _NAMED:,} more" if len(reasons) > _NAMED else ""
        super().__init__(
            f"nothing was written: {'; '.join(reasons[:_NAMED])}{more}: "
            "correct the source, or import into another tenant"
        )


def contradiction(source: SourceConversation, stored: Stored) -> str | None:
    """Return why the stored conversation is not the source's; None if it is, or if nothing is stored."""
    if not stored.version:
        return None
    why = _other_identity(source, stored) or _other_beginning(source, stored)
    return why and printable(f"conversation {source.id!r} is another in the store: {why}", longest=500)


def _other_identity(source: SourceConversation, stored: Stored) -> str | None:
    if stored.given_id != source.id:
        return f"there its id is {stored.given_id!r}"
    if source.metadata is None:
        return None
    _, metadata = full_name(stored.name, stored.metadata)
    if not equal(source.metadata, metadata):
        return f"its metadata is {source.metadata} at the source, {metadata} in the store"
    if None not in (source.created_at, stored.created_at) and source.created_at != stored.created_at:
        return f"it began at {source.created_at} at the source, at {stored.created_at} in the store"
    return None


def _other_beginning(source: SourceConversation, stored: Stored) -> str | None:
    """Return which message contradicts the store.

    Messages may be missing on either side: memory forgets the oldest ones, and those of several writers arrive late.
    But if neither side has the first message of the other, they are two conversations. And a message never changes.
    """
    brought = [place for place, message in enumerate(stored.messages) if message.is_migrated]
    if not source.messages or not (brought or (stored.messages and not stored.is_migrated)):
        return None
    found = matches(source.messages, [message.sent for message in stored.messages])
    first = brought[0] if brought else 0
    if found[0] is None and first not in found:
        return f"it begins with {_named(source.messages[0].wire)}, there with {_named(stored.messages[first].sent)}"
    times_stored = Counter(message_id(message.sent) for message in stored.messages)
    times_sent = Counter(message_id(message.wire) for message in source.messages)
    changed = {message_id(stored.messages[place].sent) for place in brought if place not in found} - {""}
    for message, place in zip(source.messages, found, strict=True):
        name = message_id(message.wire)
        if place is None and name in changed and times_stored[name] == times_sent[name] == 1:
            return f"{_named(message.wire)} was changed since it was stored"
    return None


def _named(message: Json) -> str:
    return f"message {message_id(message) or '(without an id)'!r}"
