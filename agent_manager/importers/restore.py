"""Restoring an in-memory manager from the store and the backup."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from agent_manager.application import ApplicationManager
from agent_manager.importers.a2a_demo import WITHOUT_CONTEXT, plain
from agent_manager.importers.backup import Backup, open_backup
from agent_manager.importers.backup_loader import BackupLoader, by_url, is_same_task, matches
from agent_manager.importers.comparison import MISSING, Changed, Difference, contained, keyed
from agent_manager.importers.source import Json, SourceConversation, canonical_card, canonical_task, message_id
from agent_manager.importers.store_source import StoreSource, changed_since, exported
from agent_manager.importers.stored import Stored
from agent_manager.importers.verify import Verified
from agent_manager.wire_classes import choose_classes
from eventstore import conversation_uuid
from eventstore.errors import InputError
from eventstore.ids import derived_uuid
from eventstore.json_text import equal

# What goes back: everything in the store, and whatever of the backup the store should have lost


def merged(backup: SourceConversation, store: SourceConversation) -> SourceConversation:
    """The store's conversation, with the messages and tasks in it that only the backup has, each in its place."""
    found = matches(backup.messages, [message.wire for message in store.messages])
    messages = list(store.messages)
    behind, added = 0, 0
    for message, known in zip(backup.messages, found, strict=True):
        if known is None:
            messages.insert(behind, message)
            added += 1
            behind += 1
        else:
            behind = max(behind, known + added + 1)
    known_tasks = {key for key, _ in keyed(store.tasks)}
    known_events = {(event.type, event.id) for event in store.events}
    return SourceConversation(
        backup.id,
        store.name,
        store.is_active,
        store.metadata,
        store.created_at or backup.created_at,
        messages,
        store.tasks + [task for key, task in keyed(backup.tasks) if key not in known_tasks],
        events=[event for event in backup.events if (event.type, event.id) not in known_events] + store.events,
    )


class MergedSource:
    """A backup and the store as one source: first the conversations of the backup, then those begun since.

    Attributes:
        hidden: conversations that were deleted in the store, and stay so.
        versions: of the store's conversations, when they were read.
        ignored: what was not applied of events in the log, and why.
    """

    def __init__(self, backup: Backup, store: StoreSource, tenant: str) -> None:
        self.name = f"{backup.source}, and the store"
        self.hidden: set[str] = set()
        self.versions: dict[UUID, int] = {}
        self.ignored: list[str] = []
        self._backup = backup
        self._store = store
        self._tenant = tenant

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        left = dict.fromkeys(await self._store.ids())
        for conversation in self._backup.read():
            try:
                conversation_id = conversation_uuid(self._tenant, conversation.id)
            except InputError:  # it could not go into the store
                yield conversation
                continue
            stored = await self._read(conversation_id)
            left.pop(conversation_id, None)
            if not stored.version:
                yield conversation
            elif not stored.is_deleted:
                yield merged(conversation, exported(stored))
        for conversation_id in left:
            stored = await self._read(conversation_id)
            if not stored.is_deleted:
                yield exported(stored)

    async def agents(self) -> list[Json]:
        """See :class:`Source`: those that are registered in the store."""
        return list(by_url(await self._store.agents()).values())

    async def pending(self) -> int:
        """See :class:`Source`."""
        return await self._store.pending()

    async def _read(self, conversation_id: UUID) -> Stored:
        stored = await self._store.stored(conversation_id)
        self.versions[conversation_id] = stored.version
        self.ignored += [f"conversation {stored.given_id!r}: {why}" for why in stored.ignored]
        if stored.is_deleted:
            self.hidden.add(stored.given_id)
        return stored


async def verify_merged(restored: Backup, backup: Backup, store: StoreSource, merging: MergedSource) -> Verified:
    """Whether what goes back holds all of the backup, and all of the store as it was when it was read."""
    verified = Verified()
    kept = {conversation.id: conversation for conversation in restored.read()}
    changed: dict[str, Changed] = {}
    for conversation_id, version in merging.versions.items():
        stored = await store.stored(conversation_id, version)
        if stored.version and not stored.is_deleted:
            changed[stored.given_id] = changed_since(stored)
            _look(verified, exported(stored), kept, Changed())
    for conversation in backup.read():
        if conversation.id not in merging.hidden:
            since = changed.get(conversation.id, Changed())
            _look(verified, conversation, kept, since)
            if since:
                verified.changed[conversation.id] = since
    verified.conversations = len(kept)
    verified.messages = sum(len(conversation.messages) for conversation in kept.values())
    verified.tasks = sum(len(conversation.tasks) for conversation in kept.values())
    return verified


async def written_meanwhile(store: StoreSource, merging: MergedSource) -> list[str]:
    """The conversations of the store that have been written to since they were read."""
    found = []
    for conversation_id in await store.ids():
        stored = await store.stored(conversation_id)
        if stored.version != merging.versions.get(conversation_id):
            found.append(stored.given_id)
    return found


def _look(
    verified: Verified, sought: SourceConversation, kept: dict[str, SourceConversation], changed: Changed
) -> None:
    found = kept.get(sought.id)
    if found is None:
        verified.differences.append(Difference(sought.id, "conversation", "is there", MISSING))
    else:
        verified.differences += contained(sought, found, changed)


# Back into memory: what was written for the way back, into a manager that has just been made

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
    async def take(log: Any) -> BackupLoader:
        taking = BackupLoader(log)
        await taking.all(backup)
        return taking

    taken = manager._call(lambda inner: take(inner._log))
    if taken.problems:
        raise RestoreImpossible(f"{taken.problems[0]}: correct it, and restore again")
    return Restored(backup.conversations, backup.messages, backup.tasks, len(backup.agents))


class _Restorer:
    def __init__(self, manager: Any, types: Any) -> None:
        self._manager = manager
        self._shape = choose_classes(types)
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
