"""Back into memory: what was written for the way back, into a manager that has just been made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from agent_manager.manager.contract import ApplicationManager
from agent_manager.manager.shapes import choose_shape
from agent_manager.migrating.backup import Backup, open_backup
from agent_manager.migrating.grouping import WITHOUT_CONTEXT
from agent_manager.migrating.matching import is_same_task, matches
from agent_manager.migrating.plain import plain
from agent_manager.migrating.source import SourceConversation
from agent_manager.migrating.taking_over import Taking
from agent_manager.migrating.wire import Json, canonical_card, canonical_task, message_id
from eventstore.errors import InputError
from eventstore.ids import derived_uuid
from eventstore.jsontext import equal

RESTORE = "EVENTSTORE_RESTORE"
"""The environment variable that names the file; ``eventstore rollback`` sets it for the application it starts."""


class RestoreImpossible(InputError):
    """A manager cannot take back what there is."""


@dataclass(slots=True)
class Restored:
    """What was put into a manager."""

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    agents: int = 0


def restore_into(manager: Any, file: Path | str | None = None, *, types: Any = None) -> Restored:
    """Puts back what ``eventstore rollback`` wrote. What the manager has already is not added again.

    Args:
        manager: one of ours, or one that keeps lists of its application's own classes, as the demo's in-memory manager
            does: conversations, messages, tasks, agents and events, under these names or with an underscore before.
        file: from ``EVENTSTORE_RESTORE`` if left out; where that is not set, nothing is done.
        types: the module that has the classes ``Conversation``, ``Message``, ``Task``, ``AgentCard`` and ``Event``;
            what the application has imported if left out (``service.types``, ``a2a.types``).

    Raises:
        BackupDamaged: the file is not as it was written.
        RestoreImpossible: the manager has no such lists, or something was refused.
        SourceContradictsStore: the manager has other conversations of the same ids.
        InputError: a class does not take what is stored.
    """
    path = file or os.environ.get(RESTORE)
    if not path:
        return Restored()
    backup = open_backup(Path(path))
    if isinstance(manager, ApplicationManager):
        return _into_ours(manager, backup)
    return _Restorer(manager, types).all(backup)


def _into_ours(manager: ApplicationManager, backup: Backup) -> Restored:
    async def take(log: Any) -> Taking:
        taking = Taking(log)
        await taking.all(backup)
        return taking

    taken = manager._call(lambda inner: take(inner._log))
    if taken.problems:
        raise RestoreImpossible(f"{taken.problems[0]}: correct it, and restore again")
    return Restored(backup.conversations, backup.messages, backup.tasks, len(backup.agents))


class _Restorer:
    def __init__(self, manager: Any, types: Any) -> None:
        self._manager = manager
        self._shape = choose_shape(types)
        self.done = Restored()

    def all(self, backup: Backup) -> Restored:
        conversations, agents = self._kept("conversations"), self._kept("agents")
        known = {str(_member(conversation, "conversation_id")): conversation for conversation in conversations}
        for conversation in backup.read():
            self._conversation(conversation, conversations, known.get(conversation.id))
        cards = [canonical_card(plain(card)) for card in agents]
        for card in backup.agents:
            if not any(equal(card, other) for other in cards):
                agents.append(self._shape.to_card(card))
                self.done.agents += 1
        return self.done

    def _conversation(self, source: SourceConversation, conversations: list[Any], known: Any) -> None:
        if known is None and source.id != WITHOUT_CONTEXT:
            known = self._shape.conversation(
                conversation_id=source.id,
                is_active=source.is_active,
                name=source.name,
                task_ids=[task.get("id", "") for task in source.tasks],
                messages=[],
            )
            conversations.append(known)
            self.done.conversations += 1
        there = self._kept("messages") if known is None else _member(known, "messages")
        found = matches(source.messages, [plain(message) for message in there])
        for message, place in zip(source.messages, found, strict=True):
            if place is None:
                instance = self._shape.to_message(message.wire)
                there.append(instance)
                self._note(source.id, message.wire, instance, message.time)
                if known is not None and self._found("messages") is not None:
                    self._kept("messages").append(instance)
                self.done.messages += 1
        if source.tasks:
            self._tasks(source)

    def _tasks(self, source: SourceConversation) -> None:
        tasks = self._kept("tasks")
        free = [canonical_task(plain(task)) for task in tasks]
        for place, task in enumerate(source.tasks):
            known = next((one for one in free if is_same_task(one, source, place)), None)
            if known is not None:
                free.remove(known)
            else:
                tasks.append(self._shape.to_task(task))
                self.done.tasks += 1

    def _note(self, conversation: str, wire: Json, message: Any, time: datetime | None) -> None:
        """A message's time is in the event that tells of it."""
        if time is None or self._found("events") is None:
            return
        event_id = str(derived_uuid("restored", conversation, message_id(wire), self.done.messages))
        actor = str(wire.get("role", ""))
        event = self._shape.event(id=event_id, actor=actor, content=message, timestamp=time.timestamp())
        events = self._kept("events")
        if isinstance(events, dict):
            events[event_id] = event
        else:
            events.append(event)

    def _kept(self, name: str) -> Any:
        """The list itself that a manager keeps under a name: what is added to it stays."""
        found = self._found(name)
        if found is None:
            kind = type(self._manager).__name__
            raise RestoreImpossible(f"{kind} keeps no list of {name}: give the application's in-memory manager")
        return found

    def _found(self, name: str) -> Any:
        hidden = getattr(self._manager, f"_{name}", None)
        found = hidden if hidden is not None else getattr(self._manager, name, None)
        return found if isinstance(found, list | dict) else None


def _member(thing: Any, name: str) -> Any:
    return thing[name] if isinstance(thing, dict) else getattr(thing, name)
