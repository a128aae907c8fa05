"""The interface of a source of conversations, and the plain JSON in which all sources give them.

In both versions of A2A a member that is null and one that is absent mean the same, and servers write either. So the
canonical form has no null members. In what belongs to the sender (``data``, ``metadata``) null is a value and is kept.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from typing import Any, Self

from agent_manager.a2a import Json
from eventstore.errors import InputError

IMPORTER = "importer"
"""The actor of what an import does by itself, such as creating a conversation."""


class SourceUnreadable(InputError):
    """A source cannot be reached, or is not of the expected kind."""


class Source(ABC):
    """A source of conversations. Use it as a context manager."""

    name: str

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:  # noqa: B027 - most have nothing to close
        pass

    @abstractmethod
    def conversations(self) -> AsyncIterator[SourceConversation]:
        """Yield all conversations in the order in which they began."""

    async def agents(self) -> list[Json]:
        """Return the cards of the registered agents."""
        return []

    async def pending(self) -> int:
        """Return the number of messages that await an answer."""
        return 0


# The dataclasses below are the format of backups: renaming a field breaks the backups that exist.


@dataclass(slots=True)
class SourceMessage:
    """A message of a source.

    Attributes:
        time: when it was sent; None if the source does not know.
        fetched: the indexes of the parts whose files the source had stored separately and that were fetched. The source
            does not know the names of these files any more.
    """

    wire: Json
    time: datetime | None = None
    fetched: list[int] = field(default_factory=list)


@dataclass(slots=True)
class SourceEvent:
    """An event of a conversation: what is neither a message nor a task, or any event whose place among all counts."""

    id: str
    type: str
    content: Any
    time: datetime | None = None


@dataclass(slots=True)
class SourceConversation:
    """A conversation of a source.

    Attributes:
        id: the id that its client gave it.
        metadata: what else identifies it at its source; None if the id is enough.
        created_at: when it began. If ``metadata`` is None, the earliest time that the source knows.
        messages: the oldest first.
        fetched_tasks: the indexes of the tasks in which a file was fetched that the source had stored separately.
    """

    id: str
    name: str = ""
    is_active: bool = True
    metadata: Json | None = None
    created_at: datetime | None = None
    messages: list[SourceMessage] = field(default_factory=list)
    tasks: list[Json] = field(default_factory=list)
    fetched_tasks: list[int] = field(default_factory=list)
    events: list[SourceEvent] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return the numbers of messages and tasks, those that are events included."""
        types = Counter(event.type for event in self.events)
        return {
            "messages": len(self.messages) + types["message.added"],
            "tasks": len(self.tasks) + types["task.created"],
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a source did not give, or that the store did not accept; ``conversation`` may be empty."""

    conversation: str
    place: str
    reason: str

    def __str__(self) -> str:
        prefix = f"conversation {self.conversation!r}: " if self.conversation else ""
        return f"{prefix}{self.place}: {self.reason}"


_CLOCK_DIFFERENCE = timedelta(minutes=5)
"""The largest difference of two clocks. A wrong time zone shows: offsets differ by at least 15 minutes."""


def contradiction_of_time(time: datetime, began_at: datetime | None, now: datetime, parent: str) -> str:
    """Return why the time of something cannot be right, given when its parent began; empty if it can."""
    if time > now + _CLOCK_DIFFERENCE:
        return "in the future"
    if began_at is not None and time < began_at - _CLOCK_DIFFERENCE:
        return f"before its {parent} began ({began_at})"
    return ""


def misdated_messages(conversation: SourceConversation, taken_at: datetime) -> Iterator[Problem]:
    """Yield the messages that are dated before their conversation began, or after the backup was taken."""
    for index, message in enumerate(conversation.messages):
        if message.time is not None and (
            reason := contradiction_of_time(message.time, conversation.created_at, taken_at, "conversation")
        ):
            reason = f"is dated {message.time}, {reason}: the clock of its sender was wrong, or its time zone"
            yield Problem(conversation.id, f"messages[{index}]", reason)


# Members of A2A messages and tasks, which have other names in older versions; a text is empty if the member is missing


def text_member(value: Json, *names: str) -> str:
    """Return the first of these members that is a text."""
    return next((member for name in names if isinstance(member := value.get(name), str)), "")


def message_id(message: Json) -> str:
    """Return the id that the sender gave a message."""
    return text_member(message, "messageId", "message_id")


def context_id(value: Json) -> str:
    """Return the id of the context of a message or task."""
    return text_member(value, "contextId", "context_id")


def task_id_of(message: Json) -> str:
    """Return the id of the task that a message belongs to."""
    return text_member(message, "taskId", "task_id")


# The canonical form: without null members, at every place where A2A defines the members

_OBJECTS = {"task": {"status": "status"}, "status": {"message": "message"}, "part": {"file": "file"}}
_LISTS = {"task": {"history": "message", "artifacts": "message"}, "message": {"parts": "part"}}
"""The members that are objects, or lists of objects, whose members A2A defines, and their kinds."""


def canonical_message(message: Json) -> Json:
    """Return a message in the canonical form."""
    return _canonical(message, "message")


def canonical_task(task: Json) -> Json:
    """Return a task in the canonical form; it has an id even if that is empty, which protobuf leaves out."""
    return {"id": ""} | _canonical(task, "task")


def canonical_card(card: Any) -> Any:
    """Return an agent's card in the canonical form: A2A defines its members at every depth."""
    if isinstance(card, dict):
        return {name: canonical_card(value) for name, value in card.items() if value is not None}
    return [canonical_card(value) for value in card] if isinstance(card, list) else card


def _canonical(value: Json, kind: str) -> Json:
    result = {name: member for name, member in value.items() if member is not None}
    for name, inner in _OBJECTS.get(kind, {}).items():
        if isinstance(result.get(name), dict):
            result[name] = _canonical(result[name], inner)
    for name, inner in _LISTS.get(kind, {}).items():
        if isinstance(result.get(name), list):
            result[name] = [_canonical(item, inner) if isinstance(item, dict) else item for item in result[name]]
    return result


# Times of messages and conversations, in UTC

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SECONDS = 1e11
"""Larger numbers are milliseconds (as seconds, this is the year 5138); a thousand and a million times larger ones,
microseconds and nanoseconds."""
_UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
_LEAP_SECOND = re.compile(r"(\d\d:\d\d:)60")


def read_time(value: Any, zone: tzinfo = UTC) -> datetime | None:
    """Return the time that a JSON value means; None if it means none.

    It is a text in ISO 8601 or as in e-mails (RFC 2822), in ``zone`` if it has no offset, or a number of seconds,
    milliseconds, microseconds or nanoseconds since 1970, which may be a text too. A leap second is the next second.
    Raise InputError if the clocks of the zone never showed that time.
    """
    try:
        if isinstance(value, str):
            text = value.strip()
            if re.fullmatch(r"-?\d{6,20}(\.\d+)?", text) and not re.fullmatch(r"(19|20)\d{6}", text):
                return read_time(float(text), zone)
            without_leap_second = _LEAP_SECOND.sub(r"\g<1>59", text)
            try:
                time = datetime.fromisoformat(without_leap_second)
            except ValueError:
                time = parsedate_to_datetime(without_leap_second)
            time = read_local_time(time, zone) if time.tzinfo is None else time.astimezone(UTC)
            return time if without_leap_second == text else time + timedelta(seconds=1)
        if isinstance(value, int | float) and not isinstance(value, bool):
            unit = next((unit for unit in _UNITS if abs(value) <= _MAX_SECONDS * unit), None)
            return None if unit is None else _EPOCH + timedelta(seconds=value / unit)
    except (ValueError, OverflowError):
        pass
    return None


def read_local_time(local: datetime, zone: tzinfo, not_before: datetime | None = None) -> datetime:
    """Return a local time, which has no offset, in UTC.

    If the clocks of the zone showed it twice, the first time is meant, unless that is before ``not_before``. Raise
    InputError if they never showed it, because they were put forward.
    """
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) != local.replace(fold=0):
        raise InputError(f"{local} does not exist in {zone}, where clocks were put forward: give another time zone")
    return second if not_before is not None and first < not_before else first


# The tables take names of up to 255 characters. A longer one is kept whole in the metadata.

MAX_NAME_CHARACTERS = 255
_FULL_NAME = "name"
"""The member of a conversation's metadata that holds a name that is too long for the tables."""


def stored_name(source: SourceConversation) -> tuple[str, Json | None]:
    """Return name and metadata of a conversation as the store holds them."""
    if len(source.name) <= MAX_NAME_CHARACTERS:
        return source.name, source.metadata
    return source.name[:MAX_NAME_CHARACTERS], (source.metadata or {}) | {_FULL_NAME: source.name}


def original_name(name: str, metadata: Json | None) -> tuple[str, Json | None]:
    """Return name and metadata of a conversation as they were before :func:`stored_name`."""
    full_name = (metadata or {}).get(_FULL_NAME)
    if (
        not isinstance(full_name, str)
        or len(full_name) <= MAX_NAME_CHARACTERS
        or full_name[:MAX_NAME_CHARACTERS] != name
    ):
        return name, metadata
    return full_name, {key: value for key, value in (metadata or {}).items() if key != _FULL_NAME} or None
