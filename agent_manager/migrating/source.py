"""Where conversations come from: every source gives them as plain JSON, in one shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from agent_manager.migrating.wire import Json
from eventstore.errors import InputError


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
