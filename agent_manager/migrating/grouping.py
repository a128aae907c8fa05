"""What a manager lists apart (conversations, tasks, events) put together by conversation.

Ids are free text there: a task may name a context that no conversation has, or none, and several tasks may have one id.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from agent_manager.importing.times import read_time
from agent_manager.migrating.source import SourceConversation, SourceMessage
from agent_manager.migrating.wire import (
    Json,
    canonical_message,
    canonical_task,
    context_id,
    message_id,
    task_id_of,
    text_member,
)
from eventstore.jsontext import equal

WITHOUT_CONTEXT = "without-context"
"""The conversation of tasks and messages that name no context, and that none claims."""


def grouped(
    conversations: Iterable[Json], tasks: Iterable[Json], events: Iterable[Json], strays: Iterable[Json] = ()
) -> list[SourceConversation]:
    """The conversations with their tasks and times.

    Args:
        conversations: ``conversation_id``, ``is_active``, ``name``, ``task_ids`` and ``messages``.
        tasks: as they are on the wire.
        events: ``content``, a message, and ``timestamp``, seconds since 1970.
        strays: messages that may stand in no conversation.
    """
    found: dict[str, SourceConversation] = {}
    owners: dict[str, str] = {}
    times = _Times(events)
    for plain in conversations:
        given_id = text_member(plain, "conversation_id", "conversationId")
        kept = found.setdefault(given_id, SourceConversation(given_id))
        kept.name = plain.get("name") or ""
        kept.is_active = plain.get("is_active", plain.get("isActive")) is not False
        for message in map(canonical_message, plain.get("messages") or ()):
            kept.messages.append(SourceMessage(message, times.of(message, kept.messages)))
        named = [*(plain.get("task_ids") or ()), *(task_id_of(one.wire) for one in kept.messages)]
        owners |= {task_id: given_id for task_id in named if task_id and task_id not in owners}
    for task in map(canonical_task, tasks):
        owner = context_id(task)
        if owner not in found:
            owner = owners.get(text_member(task, "id"), owner) or WITHOUT_CONTEXT
        found.setdefault(owner, SourceConversation(owner)).tasks.append(task)
    _add_strays(found, strays, times)
    for conversation in found.values():
        known = [message.time for message in conversation.messages if message.time is not None]
        conversation.created_at = min(known, default=None)
    return list(found.values())


def _add_strays(found: dict[str, SourceConversation], strays: Iterable[Json], times: _Times) -> None:
    placed: dict[str, list[Json]] = {}
    for conversation in found.values():
        for message in conversation.messages:
            placed.setdefault(message_id(message.wire), []).append(message.wire)
    for stray in map(canonical_message, strays):
        if not any(equal(stray, known) for known in placed.get(message_id(stray), ())):
            owner = context_id(stray) or WITHOUT_CONTEXT
            messages = found.setdefault(owner, SourceConversation(owner)).messages
            messages.append(SourceMessage(stray, times.of(stray, messages)))


class _Times:
    """When messages were seen. Ids repeat: of several times a message has the first not before that of the last one."""

    def __init__(self, events: Iterable[Json]) -> None:
        self._left: dict[tuple[str, str], list[datetime]] = {}
        for event in events:
            content, moment = event.get("content"), read_time(event.get("timestamp"))
            if isinstance(content, dict) and moment is not None and message_id(content):
                self._left.setdefault((message_id(content), context_id(content)), []).append(moment)

    def of(self, message: Json, before: list[SourceMessage]) -> datetime | None:
        """The time of a message that follows those; no time is given twice."""
        left = self._left.get((message_id(message), context_id(message)), [])
        if not left:
            return None
        last = next((one.time for one in reversed(before) if one.time is not None), left[0])
        found = next((moment for moment in left if moment >= last), None)
        if found is not None:
            left.remove(found)
        return found
