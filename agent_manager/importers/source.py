"""Sources of conversations: one format of plain JSON for all of them.

A member that is null and one that is absent mean the same in both shapes of A2A, and servers write either. Inside what
belongs to the sender (``data``, ``metadata``) a null is a value like any other, and stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias

from eventstore.errors import InputError

# A2A messages and tasks as plain JSON: what names them, and one form for what may be written in several

Json: TypeAlias = dict[str, Any]


def text_member(thing: Json, *names: str) -> str:
    """The first of these members that is a text; empty where none is."""
    return next((value for name in names if isinstance(value := thing.get(name), str)), "")


def message_id(message: Json) -> str:
    """The id of a message as its sender gave it; empty where it has none."""
    return text_member(message, "messageId", "message_id")


def context_id(thing: Json) -> str:
    """The context of a message or task."""
    return text_member(thing, "contextId", "context_id")


def task_id_of(message: Json) -> str:
    """The task that a message belongs to."""
    return text_member(message, "taskId", "task_id")


def canonical_message(message: Json) -> Json:
    """The message without members that are null."""
    return _with(_without_nulls(message), parts=_each(_part))


def canonical_task(task: Json) -> Json:
    """The task without members that are null, down to its messages and artifacts; protobuf leaves out an empty id."""
    kept = {"id": ""} | _without_nulls(task)
    return _with(kept, status=_status, history=_each(canonical_message), artifacts=_each(canonical_artifact))


def canonical_artifact(artifact: Json) -> Json:
    """The artifact without members that are null."""
    return _with(_without_nulls(artifact), parts=_each(_part))


def canonical_card(card: Any) -> Any:
    """An agent's card without members that are null, at any depth: all of them are A2A's own."""
    if isinstance(card, dict):
        return {name: canonical_card(value) for name, value in card.items() if value is not None}
    return [canonical_card(value) for value in card] if isinstance(card, list) else card


def _without_nulls(value: Json) -> Json:
    return {name: item for name, item in value.items() if item is not None}


def _with(value: Json, **forms: Callable[[Any], Any]) -> Json:
    return value | {name: form(value[name]) for name, form in forms.items() if name in value}


def _each(form: Callable[[Json], Json]) -> Callable[[Any], Any]:
    def each(values: Any) -> Any:
        if not isinstance(values, list):
            return values
        return [form(value) if isinstance(value, dict) else value for value in values]

    return each


def _part(part: Json) -> Json:
    return _with(_without_nulls(part), file=_file)


def _file(file: Any) -> Any:
    return _without_nulls(file) if isinstance(file, dict) else file


def _status(status: Any) -> Any:
    if not isinstance(status, dict):
        return status
    return _with(
        _without_nulls(status), message=lambda said: canonical_message(said) if isinstance(said, dict) else said
    )


# Names of conversations that are longer than the tables take: kept whole in the metadata, and given back

LONGEST_NAME = 255
FULL_NAME = "name"
"""Where in a conversation's metadata a name stands that is longer than the tables take."""


def fitted(source: SourceConversation) -> tuple[str, Json | None]:
    """Name and metadata of a conversation as the store can have them."""
    if len(source.name) <= LONGEST_NAME:
        return source.name, source.metadata
    return source.name[:LONGEST_NAME], (source.metadata or {}) | {FULL_NAME: source.name}


def full_name(name: str, metadata: Json | None) -> tuple[str, Json | None]:
    """The way back: name and metadata as they were."""
    whole = (metadata or {}).get(FULL_NAME)
    if not isinstance(whole, str) or len(whole) <= LONGEST_NAME or whole[:LONGEST_NAME] != name:
        return name, metadata
    return whole, {key: value for key, value in (metadata or {}).items() if key != FULL_NAME} or None


# Where conversations come from: every source gives them as plain JSON, in one shape


class SourceUnreadable(InputError):
    """A source of conversations cannot be reached, or is something else than it was taken for."""


@dataclass(slots=True)
class SourceMessage:
    """A message.

    Attributes:
        wire: as it is on the wire.
        time: when it was sent, where the source knows.
        fetched: which of its parts are files that the source had put aside and that were fetched back: such a file
            has lost its name on the way.
    """

    wire: Json
    time: datetime | None = None
    fetched: list[int] = field(default_factory=list)


@dataclass(slots=True)
class SourceEvent:
    """Something else that the source keeps of a conversation, under an id of its own."""

    id: str
    type: str
    content: Any
    time: datetime | None = None


@dataclass(slots=True)
class SourceConversation:
    """A conversation.

    Attributes:
        id: as its client gave it.
        metadata: what identifies it at its source besides the id; None if the id does.
        created_at: when it began. If ``metadata`` is None, the earliest time that the source knows of it.
        messages: oldest first.
        tasks: as they are on the wire.
        fetched_tasks: the places of tasks in which files stand that the source had put aside.
        events: what is neither.
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
        """Plain JSON values."""
        plain: Json = asdict(self)
        for timed in (*plain["messages"], *plain["events"]):
            timed["time"] = timed["time"] and timed["time"].isoformat()
        plain["created_at"] = self.created_at and self.created_at.isoformat()
        return plain

    @classmethod
    def from_json(cls, plain: Json) -> SourceConversation:
        """The same back."""
        return cls(**{
            **plain,
            "created_at": _moment(plain["created_at"]),
            "messages": [SourceMessage(**{**one, "time": _moment(one["time"])}) for one in plain["messages"]],
            "events": [SourceEvent(**{**one, "time": _moment(one["time"])}) for one in plain["events"]],
        })  # fmt: skip


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be had from a source, or not be stored.

    Attributes:
        conversation: its id as given; empty where it is no conversation's.
        place: in it.
        reason: what is wrong, and what to do.
    """

    conversation: str
    place: str
    reason: str

    def __str__(self) -> str:
        where = f"conversation {self.conversation!r}: " if self.conversation else ""
        return f"{where}{self.place}: {self.reason}"


CLOCKS_DIFFER = timedelta(minutes=5)
"""By how much the clocks of two machines may differ. The offsets of time zones differ by a quarter of an hour."""


def misdated(conversation: SourceConversation, taken_at: datetime) -> Iterator[Problem]:
    """Yield the messages that are dated before their conversation began, or after the backup was taken."""
    for index, message in enumerate(conversation.messages):
        if message.time is None:
            continue
        if message.time > taken_at + CLOCKS_DIFFER:
            why = f"is dated {message.time}, in the future: the clock of its sender was wrong, or its time zone"
            yield Problem(conversation.id, f"messages[{index}]", why)
        elif conversation.created_at is not None and message.time < conversation.created_at - CLOCKS_DIFFER:
            why = f"is dated {message.time}, before its conversation began ({conversation.created_at})"
            yield Problem(conversation.id, f"messages[{index}]", why)


class Source(Protocol):
    """Gives conversations.

    Attributes:
        name: what it is, for people.
    """

    name: str

    def conversations(self) -> AsyncIterator[SourceConversation]:
        """All conversations, in the order in which they began."""
        ...

    async def agents(self) -> list[Json]:
        """The cards of the registered agents."""
        ...

    async def pending(self) -> int:
        """How many messages are being answered just now."""
        ...
