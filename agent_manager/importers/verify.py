"""Verification that the store, or a running application, has everything that a backup has, member by member.

Messages and conversations are read from the read tables, as the application reads them; tasks and agents from the log.
What users of the store have changed since the import (a name, an archived conversation, a task that continued) is not a
difference, and neither is what happened to a conversation that they deleted. Messages never change: each must be there
as it was, in its order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agent_manager.a2a import Json
from agent_manager.importers.a2a_demo import WITHOUT_CONTEXT, EndpointSource, same_but_for_files, same_but_for_names
from agent_manager.importers.backup import Backup
from agent_manager.importers.source import (
    SourceConversation,
    SourceMessage,
    canonical_message,
    message_id,
    original_name,
)
from agent_manager.importers.stored import (
    LocalChanges,
    StoredConversation,
    keyed_tasks,
    missing_agents,
    read_agents,
    read_stored,
)
from agent_manager.storage import ServerLog
from eventstore import EventStore, conversation_uuid
from eventstore.errors import InputError, NotFound
from eventstore.json_text import json_equal
from projections import Reader, catch_up

IN_STORE = "are in the store as they were"
MISSING = "(missing)"
"""The value that a difference shows for a side that has none."""
_MAX_VALUE_CHARACTERS = 200
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """A place at which source and store differ.

    Attributes:
        conversation: the id that its client gave it; empty if the difference belongs to no conversation.
        place: such as ``messages[3].parts[0].text``.
        source, store: the values there; long texts are cut.
    """

    conversation: str
    place: str
    source: Any
    store: Any

    def __str__(self) -> str:
        prefix = f"conversation {self.conversation!r}: " if self.conversation else ""
        return f"{prefix}{self.place}: {self.source!r} at the source, {self.store!r} in the store"


class Report(ABC):
    """The result of a command, in words and as JSON."""

    @property
    @abstractmethod
    def is_clean(self) -> bool:
        """True if there is nothing to act on."""

    @abstractmethod
    def values(self) -> Json:
        """Return the result as plain values."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yield the result in words; long lists are cut."""


@dataclass(slots=True)
class Verification:
    """The result of comparing conversations.

    Attributes:
        hidden: the conversations that users of the store have deleted since.
    """

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    differences: list[Difference] = field(default_factory=list)
    changed: dict[str, LocalChanges] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    def count(self, conversation: SourceConversation) -> None:
        """Count a conversation, its messages and tasks as compared."""
        counts = conversation.counts()
        self.conversations += 1
        self.messages += counts["messages"]
        self.tasks += counts["tasks"]

    def compare(
        self, source: SourceConversation, found: SourceConversation | None, changes: LocalChanges | None = None
    ) -> None:
        """Note what of a conversation is missing, or is not as it was, in the one that was found; None if none was.

        The found conversation may hold more. Messages must be in the source's order.
        """
        if found is None:
            self.differences.append(Difference(source.id, "conversation", "is there", MISSING))
            return
        changes = changes or LocalChanges()
        self.differences += differences(source.id, "id", source.id, found.id)
        for name in ("name", "is_active"):
            if name not in changes.members:
                self.differences += differences(source.id, name, getattr(source, name), getattr(found, name))
        if source.metadata is not None:
            self.differences += differences(source.id, "metadata", source.metadata, found.metadata or MISSING)
        self.differences += _message_differences(source, found)
        self.differences += _task_differences(source, found, changes)
        events = {(event.type, event.id): event.content for event in found.events}
        for index, event in enumerate(source.events):
            content = events.get((event.type, event.id), MISSING)
            self.differences += differences(source.id, f"events[{index}]", event.content, content)

    @property
    def differing(self) -> list[str]:
        """The conversations that differ, each once."""
        return list(dict.fromkeys(difference.conversation for difference in self.differences))

    def values(self) -> Json:
        """Return the result as plain values."""
        return {
            "conversations": self.conversations,
            "messages": self.messages,
            "tasks": self.tasks,
            "changed_since": list(self.changed),
            "deleted_since": sorted(self.hidden),
            "conversations_that_differ": self.differing,
            "differences": [asdict(difference) for difference in self.differences],
        }

    def lines(self, success: str) -> Iterator[str]:
        """Yield the result in words; ``success`` continues "all …" if nothing differs."""
        counts = f"{self.conversations:,} conversations, {self.messages:,} messages, {self.tasks:,} tasks"
        if not self.differences:
            yield f"Verified    {counts}: all {success}"
        else:
            yield f"DIFFERENT   {len(self.differing):,} of {counts}"
            yield from list_lines("", self.differences)
        if self.changed:
            yield f"Changed     {len(self.changed):,} conversation(s) by users of the store since: left as they are"
        if self.hidden:
            yield f"Deleted     {len(self.hidden):,} conversation(s) by users of the store since: left as they are"

    def served_lines(self, success: str) -> Iterator[str]:
        """Yield the result of comparing what an application serves in words; ``success`` continues "all …"."""
        if self.differences:
            yield f"NOT SERVED  {len(self.differing):,} conversations differ, or are not served"
            yield from list_lines("", self.differences)
        else:
            yield f"Served      all {self.conversations:,} conversations {success}"


def list_lines(heading: str, values: Sequence[Any]) -> Iterator[str]:
    """Yield a line for each of the first values, and the number of the others."""
    for value in values[:_LISTED]:
        yield f"{heading:<12}{value}"
    if len(values) > _LISTED:
        yield f"{heading:<12}and {len(values) - _LISTED:,} more: --json shows all"


def _message_differences(source: SourceConversation, found: SourceConversation) -> Iterator[Difference]:
    matches = match_messages(source.messages, found.messages)
    matched = set(matches)
    unmatched = [message.wire for index, message in enumerate(found.messages) if index not in matched]
    latest = -1
    for index, (message, match) in enumerate(zip(source.messages, matches, strict=True)):
        place = f"messages[{index}]"
        if match is None:
            given_id = message_id(message.wire)
            same_id = next((wire for wire in unmatched if message_id(wire) == given_id), None)
            if same_id is None:
                yield Difference(source.id, place, given_id or "(without an id)", MISSING)
            else:
                yield from differences(source.id, place, message.wire, same_id)
            continue
        if match < latest:
            yield Difference(source.id, place, "comes after those before it", "comes before one of them")
        latest = max(latest, match)
        time = found.messages[match].time
        if message.time is not None and time is not None and message.time != time:
            yield Difference(source.id, f"{place} (time)", message.time.isoformat(), time.isoformat())


def _task_differences(
    source: SourceConversation, found: SourceConversation, changes: LocalChanges
) -> Iterator[Difference]:
    tasks = dict(keyed_tasks(found.tasks))
    for index, (key, task) in enumerate(keyed_tasks(source.tasks)):
        if key not in tasks:
            yield Difference(source.id, f"tasks[{index}]", key[0] or "(without an id)", MISSING)
        elif key not in changes.tasks and not is_same_task(tasks[key], source, index):
            yield from differences(source.id, f"tasks[{index}]", task, tasks[key])


def differences(conversation: str, place: str, source: Any, store: Any) -> Iterator[Difference]:
    """Yield every innermost place at which two values differ."""
    if json_equal(source, store):
        return
    if isinstance(source, dict) and isinstance(store, dict):
        for name in source.keys() | store.keys():
            inner = f"{place}.{name}" if place else name
            yield from differences(conversation, inner, source.get(name, MISSING), store.get(name, MISSING))
    elif isinstance(source, list) and isinstance(store, list) and len(source) == len(store):
        for index, (left, right) in enumerate(zip(source, store, strict=True)):
            yield from differences(conversation, f"{place}[{index}]", left, right)
    else:
        yield Difference(conversation, place, _shortened(source), _shortened(store))


def _shortened(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = str(value)
    return (
        value[:_MAX_VALUE_CHARACTERS] + "…" if isinstance(value, str) and len(value) > _MAX_VALUE_CHARACTERS else value
    )


# Ids repeat, so a message is identified by its id and its content, and a task by its id and its occurrence. All are in
# the canonical form.


def match_messages(messages: Sequence[SourceMessage], stored: Sequence[SourceMessage]) -> list[int | None]:
    """Return for each message the index of the stored message that it is, None if it is not stored.

    No index occurs twice: the second of two equal messages is the second of the stored ones.
    """
    free: dict[str, list[int]] = {}
    for index, message in enumerate(stored):
        free.setdefault(message_id(message.wire), []).append(index)
    matches: list[int | None] = []
    for message in messages:
        candidates = free.get(message_id(message.wire), [])
        match = next((index for index in candidates if same_but_for_files(stored[index].wire, message)), None)
        if match is not None:
            candidates.remove(match)
        matches.append(match)
    return matches


def is_same_task(stored: Json, source: SourceConversation, index: int) -> bool:
    """Return whether a stored task is the source's task at an index."""
    task = source.tasks[index]
    return json_equal(stored, task) or (index in source.fetched_tasks and same_but_for_names(stored, task))


async def verify_backup(store: EventStore, tenant: str, backup: Backup) -> Verification:
    """Compare a backup with the store, after bringing the read tables up to date."""
    await catch_up(store)
    reader, log = Reader(store, tenant, on_primary=True), ServerLog(store, tenant)
    result = Verification()
    agents = await read_agents(log)
    for url, card in missing_agents(backup.agents, agents).items():
        result.differences += differences("", f"agents[{url!r}]", card, agents.agents.get(url, MISSING))

    async def find(source: SourceConversation) -> StoredConversation | None:
        """Return a conversation with messages and members from the read tables and the rest from the log."""
        try:
            row = await reader.conversation(conversation_uuid(tenant, source.id))
        except (NotFound, InputError):
            return None
        stored = await read_stored(log, row.id)
        if not stored.is_deleted:
            found = stored.conversation
            found.id, found.is_active = row.given_id or str(row.id), row.is_active
            found.name, found.metadata = original_name(row.name, row.metadata)
            found.messages = [
                SourceMessage(
                    canonical_message(message.sent), message.created_at if stored.event_times.get(message.id) else None
                )
                for message in await reader.messages(row.id)
            ]
        return stored

    async for conversation, stored in backup.read_with(find):
        result.count(conversation)
        if stored is None:
            result.compare(conversation, None)
        elif stored.is_deleted:
            result.hidden.add(conversation.id)
        else:
            result.compare(conversation, stored.conversation, stored.changes)
            if stored.changes:
                result.changed[conversation.id] = stored.changes
    return result


async def verify_served(url: str, backup: Backup, stored: Verification | None = None) -> Verification:
    """Compare what an application serves with a backup.

    Args:
        stored: the comparison of the store that it serves from. What was changed or deleted there may differ, and the
            store may have named the conversations. None if the application serves what is in the backup.

    Raises:
        SourceUnreadable: nothing answers, or another kind of server.
    """
    result = Verification()
    async with EndpointSource(url) as application:
        served = {found.id: _with_kinds(found) async for found in application.conversations()}
    for conversation in backup.read():
        if stored is not None and conversation.id in stored.hidden:
            continue
        result.count(conversation)
        found = served.get(conversation.id)
        if conversation.id == WITHOUT_CONTEXT:
            conversation.messages = []
            if found is None:
                continue
        conversation.metadata, conversation.events = None, []  # the endpoints do not give them
        changes = LocalChanges()
        if stored is not None:
            since_import = stored.changed.get(conversation.id, changes)
            changes = LocalChanges(since_import.members | {"name"}, since_import.tasks)
        result.compare(_with_kinds(conversation), found, changes)
    return result


def _with_kinds(conversation: SourceConversation) -> SourceConversation:
    """Give every message and task its ``kind``, which the classes of an application add on their own."""
    messages: list[Any] = [message.wire for message in conversation.messages]
    for task in conversation.tasks:
        task.setdefault("kind", "task")
        status = task.get("status")
        messages += [status.get("message") if isinstance(status, dict) else None, *(task.get("history") or ())]
    for message in messages:
        if isinstance(message, dict):
            message.setdefault("kind", "message")
    return conversation
