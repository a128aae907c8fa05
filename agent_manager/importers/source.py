"""The interface of a source of conversations, and the plain JSON in which all sources give them.

In both versions of A2A a member that is null and one that is absent mean the same, and servers write either. So the
canonical form has no null members. In what belongs to the sender (``data``, ``metadata``) null is a value and is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from agent_manager.a2a import Json
from eventstore.errors import InputError


class SourceUnreadable(InputError):
    """A source cannot be reached, or is not of the expected kind."""


class Source(Protocol):
    """A source of conversations.

    Attributes:
        name: a name to show to people.
    """

    name: str

    def conversations(self) -> AsyncIterator[SourceConversation]:
        """Yield all conversations in the order in which they began."""
        ...

    async def agents(self) -> list[Json]:
        """Return the cards of the registered agents."""
        ...

    async def pending(self) -> int:
        """Return the number of messages that await an answer."""
        ...


# The dataclasses below are the format of backups: renaming a field breaks the backups that exist.


@dataclass(slots=True)
class SourceMessage:
    """A message of a source.

    Attributes:
        wire: the message in the canonical form.
        time: when it was sent; None if the source does not know.
        fetched: the indexes of the parts whose files the source had stored separately and that were fetched. The source
            does not know the names of these files any more.
    """

    wire: Json
    time: datetime | None = None
    fetched: list[int] = field(default_factory=list)


@dataclass(slots=True)
class SourceEvent:
    """Something of a conversation that is neither a message nor a task."""

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
        tasks: in the canonical form.
        fetched_tasks: the indexes of the tasks in which a file was fetched that the source had stored separately.
        events: what is neither a message nor a task.
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

    def to_json(self) -> Json:
        """Return the conversation as plain JSON values."""
        value: Json = asdict(self)
        for item in (*value["messages"], *value["events"]):
            item["time"] = item["time"] and item["time"].isoformat()
        value["created_at"] = self.created_at and self.created_at.isoformat()
        return value

    @classmethod
    def from_json(cls, value: Json) -> SourceConversation:
        """Return the conversation that :meth:`to_json` wrote."""
        return cls(**{
            **value,
            "created_at": _time(value["created_at"]),
            "messages": [SourceMessage(**{**item, "time": _time(item["time"])}) for item in value["messages"]],
            "events": [SourceEvent(**{**item, "time": _time(item["time"])}) for item in value["events"]],
        })  # fmt: skip


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a source did not give, or that the store did not accept.

    Attributes:
        conversation: the id that its client gave it; empty if the problem belongs to no conversation.
        place: where in the conversation.
        reason: what is wrong, and what to do.
    """

    conversation: str
    place: str
    reason: str

    def __str__(self) -> str:
        prefix = f"conversation {self.conversation!r}: " if self.conversation else ""
        return f"{prefix}{self.place}: {self.reason}"


CLOCK_DIFFERENCE = timedelta(minutes=5)
"""How far the clocks of two machines may be apart. A wrong time zone shows: offsets differ by at least 15 minutes."""


def misdated_messages(conversation: SourceConversation, taken_at: datetime) -> Iterator[Problem]:
    """Yield the messages that are dated before their conversation began, or after the backup was taken."""
    began_at = conversation.created_at
    for index, message in enumerate(conversation.messages):
        if message.time is None:
            continue
        if message.time > taken_at + CLOCK_DIFFERENCE:
            reason = f"is dated {message.time}, in the future: the clock of its sender was wrong, or its time zone"
            yield Problem(conversation.id, f"messages[{index}]", reason)
        elif began_at is not None and message.time < began_at - CLOCK_DIFFERENCE:
            reason = f"is dated {message.time}, before its conversation began ({began_at})"
            yield Problem(conversation.id, f"messages[{index}]", reason)


# Members of A2A messages and tasks, which have other names in older versions


def text_member(value: Json, *names: str) -> str:
    """Return the first of these members that is a text; empty if none is."""
    return next((member for name in names if isinstance(member := value.get(name), str)), "")


def message_id(message: Json) -> str:
    """Return the id that the sender gave a message; empty if it has none."""
    return text_member(message, "messageId", "message_id")


def context_id(value: Json) -> str:
    """Return the id of the context of a message or task; empty if it has none."""
    return text_member(value, "contextId", "context_id")


def task_id_of(message: Json) -> str:
    """Return the id of the task that a message belongs to; empty if it names none."""
    return text_member(message, "taskId", "task_id")


# The canonical form: without null members, at every place where A2A defines the members


def canonical_message(message: Json) -> Json:
    """Return a message in the canonical form."""
    return _canonical(message, lists={"parts": _canonical_part})


def canonical_task(task: Json) -> Json:
    """Return a task in the canonical form; it has an id even if that is empty, which protobuf leaves out."""
    lists = {"history": canonical_message, "artifacts": canonical_message}
    return {"id": ""} | _canonical(task, objects={"status": _canonical_status}, lists=lists)


def canonical_card(card: Any) -> Any:
    """Return an agent's card in the canonical form: A2A defines its members at every depth."""
    if isinstance(card, dict):
        return {name: canonical_card(value) for name, value in card.items() if value is not None}
    return [canonical_card(value) for value in card] if isinstance(card, list) else card


def _canonical_part(part: Json) -> Json:
    return _canonical(part, objects={"file": _canonical})


def _canonical_status(status: Json) -> Json:
    return _canonical(status, objects={"message": canonical_message})


def _canonical(
    value: Json,
    objects: Mapping[str, Callable[[Json], Json]] | None = None,
    lists: Mapping[str, Callable[[Json], Json]] | None = None,
) -> Json:
    """Return an object without null members, with the named members that are objects, or lists of them, converted."""
    result = {name: member for name, member in value.items() if member is not None}
    for name, convert in (objects or {}).items():
        if isinstance(result.get(name), dict):
            result[name] = convert(result[name])
    for name, convert in (lists or {}).items():
        if isinstance(result.get(name), list):
            result[name] = [convert(item) if isinstance(item, dict) else item for item in result[name]]
    return result


# The tables take names of up to 255 characters. A longer one is kept whole in the metadata.

_LONGEST_NAME = 255
_FULL_NAME = "name"
"""The member of a conversation's metadata that holds a name that is too long for the tables."""


def stored_name(source: SourceConversation) -> tuple[str, Json | None]:
    """Return name and metadata of a conversation as the store holds them."""
    if len(source.name) <= _LONGEST_NAME:
        return source.name, source.metadata
    return source.name[:_LONGEST_NAME], (source.metadata or {}) | {_FULL_NAME: source.name}


def original_name(name: str, metadata: Json | None) -> tuple[str, Json | None]:
    """Return name and metadata of a conversation as they were before :func:`stored_name`."""
    full_name = (metadata or {}).get(_FULL_NAME)
    if not isinstance(full_name, str) or len(full_name) <= _LONGEST_NAME or full_name[:_LONGEST_NAME] != name:
        return name, metadata
    return full_name, {key: value for key, value in (metadata or {}).items() if key != _FULL_NAME} or None
