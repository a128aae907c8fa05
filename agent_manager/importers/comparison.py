"""The comparison of conversations member by member, and its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from agent_manager.a2a import Json
from agent_manager.importers.a2a_demo import same_but_for_files, same_but_for_names
from agent_manager.importers.source import (
    SourceConversation,
    SourceMessage,
    canonical_message,
    canonical_task,
    message_id,
    text_member,
)
from eventstore.json_text import json_equal

MISSING = "(missing)"
"""The value that a difference shows for a side that has none."""
_LONGEST_VALUE = 200
_LISTED = 20

TaskKey: TypeAlias = tuple[str, int]
"""A task's id, and the number of earlier tasks of its conversation with the same id."""


@dataclass(frozen=True, slots=True)
class ImportDifference:
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


@dataclass(slots=True)
class LocalChanges:
    """What users of the store have changed in a conversation since its import; it may differ from the source.

    Attributes:
        fields: members of the conversation: ``name``, ``is_active``.
        tasks: tasks that continued.
    """

    fields: set[str] = field(default_factory=set)
    tasks: set[TaskKey] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.fields or self.tasks)


@dataclass(slots=True)
class Verification:
    """The result of comparing conversations.

    Attributes:
        conversations, messages, tasks: how many were compared.
        differences: what is missing, or is not as it was.
        changed: the local changes, by conversation.
        hidden: the conversations that users of the store have deleted since.
    """

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    differences: list[ImportDifference] = field(default_factory=list)
    changed: dict[str, LocalChanges] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    def count(self, conversation: SourceConversation) -> None:
        """Count a conversation, its messages and tasks as compared."""
        self.conversations += 1
        self.messages += len(conversation.messages)
        self.tasks += len(conversation.tasks)

    def compare(
        self, source: SourceConversation, found: SourceConversation | None, changes: LocalChanges | None = None
    ) -> None:
        """Compare a conversation with the one that was found; None if none was."""
        if found is None:
            self.differences.append(ImportDifference(source.id, "conversation", "is there", MISSING))
        else:
            self.differences += compare_conversations(source, found, changes or LocalChanges())

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


def compare_conversations(
    source: SourceConversation, found: SourceConversation, changes: LocalChanges
) -> Iterator[ImportDifference]:
    """Yield what of the source is missing in the found conversation, or is not as it was there.

    The found conversation may hold more. Messages must be in the source's order.
    """
    yield from differences(source.id, "id", source.id, found.id)
    for name in ("name", "is_active"):
        if name not in changes.fields:
            yield from differences(source.id, name, getattr(source, name), getattr(found, name))
    if source.metadata is not None:
        yield from differences(source.id, "metadata", source.metadata, found.metadata or MISSING)
    yield from _compare_messages(source, found)
    tasks = dict(keyed_tasks(found.tasks))
    for index, (key, task) in enumerate(keyed_tasks(source.tasks)):
        if key not in tasks:
            yield ImportDifference(source.id, f"tasks[{index}]", key[0] or "(without an id)", MISSING)
        elif key not in changes.tasks and not is_same_task(tasks[key], source, index):
            yield from differences(source.id, f"tasks[{index}]", task, canonical_task(tasks[key]))
    events = {(event.type, event.id): event.content for event in found.events}
    for index, event in enumerate(source.events):
        content = events.get((event.type, event.id), MISSING)
        yield from differences(source.id, f"events[{index}]", event.content, content)


def _compare_messages(source: SourceConversation, found: SourceConversation) -> Iterator[ImportDifference]:
    matches = match_messages(source.messages, [message.wire for message in found.messages])
    matched = set(matches)
    unmatched = [message.wire for index, message in enumerate(found.messages) if index not in matched]
    latest = -1
    for index, (message, match) in enumerate(zip(source.messages, matches, strict=True)):
        place = f"messages[{index}]"
        if match is None:
            given_id = message_id(message.wire)
            same_id = next((wire for wire in unmatched if message_id(wire) == given_id), None)
            if same_id is None:
                yield ImportDifference(source.id, place, given_id or "(without an id)", MISSING)
            else:
                yield from differences(source.id, place, message.wire, canonical_message(same_id))
            continue
        if match < latest:
            yield ImportDifference(source.id, place, "comes after those before it", "comes before one of them")
        latest = max(latest, match)
        time = found.messages[match].time
        if message.time is not None and time is not None and message.time != time:
            yield ImportDifference(source.id, f"{place} (time)", message.time.isoformat(), time.isoformat())


def differences(conversation: str, place: str, source: Any, store: Any) -> Iterator[ImportDifference]:
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
        yield ImportDifference(conversation, place, _shortened(source), _shortened(store))


def _shortened(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = str(value)
    return value[:_LONGEST_VALUE] + "…" if isinstance(value, str) and len(value) > _LONGEST_VALUE else value


# Ids repeat, so a message is identified by its id and its content, and a task by its id and its occurrence.


def match_messages(messages: Sequence[SourceMessage], stored: Sequence[Json]) -> list[int | None]:
    """Return for each message the index of the stored message that it is, None if it is not stored.

    No index occurs twice: the second of two equal messages is the second of the stored ones.
    """
    free: dict[str, list[int]] = {}
    for index, wire in enumerate(stored):
        free.setdefault(message_id(wire), []).append(index)
    matches: list[int | None] = []
    for message in messages:
        candidates = free.get(message_id(message.wire), [])
        match = next((index for index in candidates if _is_same_message(stored[index], message)), None)
        if match is not None:
            candidates.remove(match)
        matches.append(match)
    return matches


def _is_same_message(stored: Json, message: SourceMessage) -> bool:
    stored = canonical_message(stored)
    return json_equal(stored, message.wire) or same_but_for_files(stored, message.wire, message.fetched)


def is_same_task(stored: Json, source: SourceConversation, index: int) -> bool:
    """Return whether a stored task is the source's task at an index."""
    stored, task = canonical_task(stored), source.tasks[index]
    return json_equal(stored, task) or (index in source.fetched_tasks and same_but_for_names(stored, task))


def keyed_tasks(tasks: list[Json]) -> Iterator[tuple[TaskKey, Json]]:
    """Yield tasks with their keys."""
    occurrences: Counter[str] = Counter()
    for task in tasks:
        given_id = text_member(task, "id")
        yield (given_id, occurrences[given_id]), task
        occurrences[given_id] += 1
