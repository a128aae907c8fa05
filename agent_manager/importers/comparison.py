"""Comparison of conversations and JSON values, member by member."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agent_manager.importers.backup_loader import is_same_task, matches
from agent_manager.importers.source import (
    Json,
    SourceConversation,
    SourceMessage,
    canonical_message,
    canonical_task,
    message_id,
    text_member,
)
from eventstore.json_text import equal

# Two JSON values compared member by member: where they differ, by the path of the place

MISSING = "(missing)"
"""What a difference says of a side that has nothing in the place."""
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """A place in which two sides do not hold the same.

    Attributes:
        conversation: its id as given; empty where it is no conversation's.
        place: such as ``messages[3].parts[0].text``.
        source, store: what either holds there; long texts are cut.
    """

    conversation: str
    place: str
    source: Any
    store: Any

    def __str__(self) -> str:
        where = f"conversation {self.conversation!r}: " if self.conversation else ""
        return f"{where}{self.place}: {self.source!r} at the source, {self.store!r} in the store"


def differing(conversation: str, place: str, source: Any, store: Any) -> Iterator[Difference]:
    """Every innermost place in which the two values differ."""
    if equal(source, store):
        return
    if isinstance(source, dict) and isinstance(store, dict):
        for name in source.keys() | store.keys():
            inner = f"{place}.{name}" if place else name
            yield from differing(conversation, inner, source.get(name, MISSING), store.get(name, MISSING))
    elif isinstance(source, list) and isinstance(store, list) and len(source) == len(store):
        for index, (one, other) in enumerate(zip(source, store, strict=True)):
            yield from differing(conversation, f"{place}[{index}]", one, other)
    else:
        yield Difference(conversation, place, _short(source), _short(store))


def _short(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = str(value)
    return value if not isinstance(value, str) or len(value) <= _LONGEST else value[:_LONGEST] + "…"


# Whether one conversation holds all that another does, each message and task as it was and in its order

TaskKey: TypeAlias = tuple[str, int]
"""A task's id, and how many of the conversation's tasks before it have the same."""


@dataclass(slots=True)
class Changed:
    """What has been changed on purpose, and so need not be as it was.

    Attributes:
        fields: of the conversation: ``name``, ``is_active``.
        tasks: that went on.
    """

    fields: set[str] = field(default_factory=set)
    tasks: set[TaskKey] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.fields or self.tasks)


def contained(source: SourceConversation, whole: SourceConversation, changed: Changed) -> Iterator[Difference]:
    """What of the first is not in the second, or not as it was."""
    compared = {"name": (source.name, whole.name), "is_active": (source.is_active, whole.is_active)}
    for place, (ours, theirs) in compared.items():
        if place not in changed.fields:
            yield from differing(source.id, place, ours, theirs)
    if source.metadata is not None:
        yield from differing(source.id, "metadata", source.metadata, whole.metadata or MISSING)
    yield from _messages(source, whole)
    yield from _tasks(source, whole, changed)
    known = {(event.type, event.id): event.content for event in whole.events}
    for index, event in enumerate(source.events):
        yield from differing(source.id, f"events[{index}]", event.content, known.get((event.type, event.id), MISSING))


def keyed(tasks: list[Json]) -> Iterator[tuple[TaskKey, Json]]:
    """Tasks with their keys."""
    seen: Counter[str] = Counter()
    for task in tasks:
        given_id = text_member(task, "id")
        yield (given_id, seen[given_id]), task
        seen[given_id] += 1


def _messages(source: SourceConversation, whole: SourceConversation) -> Iterator[Difference]:
    found = matches(source.messages, [message.wire for message in whole.messages])
    taken = {place for place in found if place is not None}
    latest = -1
    for index, (message, known) in enumerate(zip(source.messages, found, strict=True)):
        place = f"messages[{index}]"
        if known is None:
            others = [other for at, other in enumerate(whole.messages) if at not in taken]
            yield from _unmatched(source.id, place, message, others)
            continue
        if known < latest:
            yield Difference(source.id, place, "comes after those before it", "comes before one of them")
        latest = max(latest, known)
        theirs = whole.messages[known].time
        if message.time is not None and theirs is not None and message.time != theirs:
            yield Difference(source.id, f"{place} (time)", message.time.isoformat(), theirs.isoformat())


def _unmatched(
    conversation: str, place: str, message: SourceMessage, others: list[SourceMessage]
) -> Iterator[Difference]:
    """A message that is not there as it was: compared with one of its id, if there is any."""
    given_id = message_id(message.wire)
    other = next((other for other in others if message_id(other.wire) == given_id), None)
    if other is None:
        yield Difference(conversation, place, given_id or "(without an id)", MISSING)
    else:
        yield from differing(conversation, place, message.wire, canonical_message(other.wire))


def _tasks(source: SourceConversation, whole: SourceConversation, changed: Changed) -> Iterator[Difference]:
    known = dict(keyed(whole.tasks))
    for index, (key, task) in enumerate(keyed(source.tasks)):
        if key not in known:
            yield Difference(source.id, f"tasks[{index}]", key[0] or "(without an id)", MISSING)
        elif key not in changed.tasks and not is_same_task(known[key], source, index):
            yield from differing(source.id, f"tasks[{index}]", task, canonical_task(known[key]))
