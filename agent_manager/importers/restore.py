"""Restoring a backup into an in-memory manager, as the last step of a rollback."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from agent_manager.a2a import Json
from agent_manager.application import ApplicationManager
from agent_manager.importers.a2a_demo import WITHOUT_CONTEXT, to_plain
from agent_manager.importers.backup import Backup, open_backup
from agent_manager.importers.migration import load_backup
from agent_manager.importers.source import (
    SourceConversation,
    SourceMessage,
    canonical_card,
    canonical_message,
    canonical_task,
    message_id,
)
from agent_manager.importers.verify import is_same_task, match_messages
from agent_manager.wire_classes import choose_classes
from eventstore.errors import InputError
from eventstore.ids import derived_uuid
from eventstore.json_text import json_equal

RESTORE = "EVENTSTORE_RESTORE"
"""The environment variable that names the file; ``eventstore rollback`` sets it for the application that it starts."""


class RestoreImpossible(InputError):
    """A manager cannot hold what a backup holds."""


@dataclass(slots=True)
class Restored:
    """The numbers of what was added to a manager."""

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    agents: int = 0


def restore_into(manager: Any, file: Path | str | None = None, *, types: Any = None) -> Restored:
    """Load what ``eventstore rollback`` wrote into a manager. What the manager has already is not added again.

    Args:
        manager: one of ours, or one that keeps lists of its application's own classes, as the demo's in-memory manager
            does: conversations, messages, tasks, agents and events, under these names or with a leading underscore.
        file: from ``EVENTSTORE_RESTORE`` by default; if that is not set, nothing is done.
        types: the module with the classes ``Conversation``, ``Message``, ``Task``, ``AgentCard`` and ``Event``; by
            default the one that the application has imported (``service.types``, ``a2a.types``).

    Raises:
        SourceBackupDamaged: the file is not as it was written.
        RestoreImpossible: the manager has no such lists, or rejected something.
        SourceContradictsStore: the manager has other conversations under the same ids.
        InputError: a class does not accept what is stored.
    """
    path = file or os.environ.get(RESTORE)
    if not path:
        return Restored()
    backup = open_backup(Path(path))
    if not isinstance(manager, ApplicationManager):
        return _Restorer(manager, types).restore(backup)
    report = manager._call(lambda inner: load_backup(inner._log, backup))
    if report.problems:
        raise RestoreImpossible(f"{report.problems[0]}: correct it, and restore again")
    return Restored(backup.conversations, backup.messages, backup.tasks, len(backup.agents))


class _Restorer:
    """Adds instances of an application's classes to the lists of its manager."""

    def __init__(self, manager: Any, types: Any) -> None:
        self._manager = manager
        self._classes = choose_classes(types)
        self._restored = Restored()

    def restore(self, backup: Backup) -> Restored:
        conversations, agents = self._list("conversations"), self._list("agents")
        existing = {str(_member(conversation, "conversation_id")): conversation for conversation in conversations}
        for conversation in backup.read():
            self._restore_messages(conversation, conversations, existing.get(conversation.id))
            if conversation.tasks:
                self._restore_tasks(conversation)
        cards = [canonical_card(to_plain(card)) for card in agents]
        for card in backup.agents:
            if not any(json_equal(card, known) for known in cards):
                agents.append(self._classes.to_card(card))
                self._restored.agents += 1
        return self._restored

    def _restore_messages(self, source: SourceConversation, conversations: list[Any], existing: Any) -> None:
        if existing is None and source.id != WITHOUT_CONTEXT:
            existing = self._classes.conversation(
                conversation_id=source.id,
                is_active=source.is_active,
                name=source.name,
                task_ids=[task.get("id", "") for task in source.tasks],
                messages=[],
            )
            conversations.append(existing)
            self._restored.conversations += 1
        messages = self._list("messages") if existing is None else _member(existing, "messages")
        existing_messages = [SourceMessage(canonical_message(to_plain(message))) for message in messages]
        matches = match_messages(source.messages, existing_messages)
        for message, match in zip(source.messages, matches, strict=True):
            if match is None:
                instance = self._classes.to_message(message.wire)
                messages.append(instance)
                self._add_event(source.id, message.wire, instance, message.time)
                if existing is not None and (every_message := self._find("messages")) is not None:
                    every_message.append(instance)
                self._restored.messages += 1

    def _restore_tasks(self, source: SourceConversation) -> None:
        tasks = self._list("tasks")
        unmatched = [canonical_task(to_plain(task)) for task in tasks]
        for index, task in enumerate(source.tasks):
            match = next((known for known in unmatched if is_same_task(known, source, index)), None)
            if match is not None:
                unmatched.remove(match)
            else:
                tasks.append(self._classes.to_task(task))
                self._restored.tasks += 1

    def _add_event(self, conversation: str, wire: Json, message: Any, time: datetime | None) -> None:
        """Add the event of a message, which holds its time."""
        events = self._find("events")
        if time is None or events is None:
            return
        event_id = str(derived_uuid("restored", conversation, message_id(wire), self._restored.messages))
        actor = str(wire.get("role", ""))
        event = self._classes.event(id=event_id, actor=actor, content=message, timestamp=time.timestamp())
        if isinstance(events, dict):
            events[event_id] = event
        else:
            events.append(event)

    def _list(self, name: str) -> Any:
        found = self._find(name)
        if found is None:
            kind = type(self._manager).__name__
            raise RestoreImpossible(f"{kind} keeps no list of {name}: give the application's in-memory manager")
        return found

    def _find(self, name: str) -> Any:
        """Return the list itself that the manager keeps under a name, so that it keeps what is added."""
        private = getattr(self._manager, f"_{name}", None)
        found = private if private is not None else getattr(self._manager, name, None)
        return found if isinstance(found, list | dict) else None


def _member(value: Any, name: str) -> Any:
    return value[name] if isinstance(value, dict) else getattr(value, name)
