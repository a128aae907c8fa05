"""The event vocabulary: every built-in event type, as a discriminated union of pydantic models.

Every limit that a read table has is enforced here, before an event is appended, so that no built-in event can fail
in a projection. Members that a newer version added to a known event are kept (``model_extra``); events of a type
that this version does not know are read as :class:`UnknownEvent`. Both are written back as they were.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from eventstore.errors import InvalidEvent
from eventstore.json_text import check_text, load
from eventstore.member_order import encode, encode_members, restore, restore_members

# What all events of the vocabulary share, and the words in them


class Role(StrEnum):
    """Who speaks. A2A's ``agent`` is stored as ``assistant``."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"


class TaskStatus(StrEnum):
    """Every state of an A2A task; ``submitted`` is stored as ``pending``, ``working`` as ``in_progress``."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INPUT_REQUIRED = "input-required"
    AUTH_REQUIRED = "auth-required"
    CANCELED = "canceled"
    FAILED = "failed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


if TYPE_CHECKING:  # a caller may write the word itself; pydantic makes the member of it
    RoleWord: TypeAlias = Role | Literal["user", "assistant", "system", "tool"]
    StatusWord: TypeAlias = (
        TaskStatus
        | Literal["pending", "in_progress", "completed", "input-required", "auth-required"]
        | Literal["canceled", "failed", "rejected", "unknown"]
    )
else:
    RoleWord, StatusWord = Role, TaskStatus

Name = Annotated[str, Field(max_length=255)]
UserName = Annotated[str, Field(min_length=1, max_length=255)]
Json: TypeAlias = dict[str, Any]


class EventData(BaseModel):
    """What all events of the vocabulary share. Raises :class:`InvalidEvent` where a value does not fit."""

    model_config = ConfigDict(extra="allow", frozen=True)

    event_type: str

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _invalid(type(self).__name__, error) from None

    def to_content(self) -> Any:
        """The event's content as plain JSON values; members that are None are left out."""
        content: Json = {
            name: str(value) if isinstance(value, (UUID, StrEnum)) else value
            for name, value in self.__dict__.items()
            if value is not None and name != "event_type"
        }
        return content | self.model_extra if self.model_extra else content

    def member_order(self) -> Any:
        """Return the order of the members in the content, see :mod:`eventstore.member_order`; None is the stored
        one.
        """
        return encode_members(self.__dict__ | self.model_extra if self.model_extra else self.__dict__)

    def restore_order(self, order: object) -> None:
        """Bring the members in the content, as it was read, into that order, in place."""
        if isinstance(order, dict):
            restore_members(self.__dict__ | self.model_extra if self.model_extra else self.__dict__, order)

    @classmethod
    def from_content(cls, event_type: str, content: Any) -> Self:
        """The event of this class with that stored content."""
        return cls.model_validate({**content, "event_type": event_type})


def _invalid(what: str, error: ValidationError) -> InvalidEvent:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    given = f", got {first['input']!r:.80}" if first["type"] != "missing" else ""
    return InvalidEvent(f"{what}.{path}" if path else what, f"{first['msg']}{given}")


# The event vocabulary: what can happen in a conversation, as a discriminated union of pydantic models

SCHEMA_VERSION = 1
"""Version of the shapes below; stored with every event."""

RESERVED_PREFIXES = ("agent.", "conversation.", "message.", "task.", "tenant.", "eventstore.")
"""Types that begin so belong to this vocabulary, present and future."""


class ConversationCreated(EventData):
    """A conversation began. ``given_id`` is its id as the client gave it, where that was not a UUID."""

    event_type: Literal["conversation.created"] = "conversation.created"
    name: Name = ""
    given_id: str | None = None
    metadata: Json | None = None


class ConversationRenamed(EventData):
    """A conversation got another name."""

    event_type: Literal["conversation.renamed"] = "conversation.renamed"
    name: Name


class ConversationArchived(EventData):
    """A conversation is no longer active."""

    event_type: Literal["conversation.archived"] = "conversation.archived"


class ConversationReactivated(EventData):
    """A conversation is active again, and no longer deleted if it was."""

    event_type: Literal["conversation.reactivated"] = "conversation.reactivated"


class ConversationDeleted(EventData):
    """A conversation is hidden, and accepts no further events until it is reactivated. Its events stay."""

    event_type: Literal["conversation.deleted"] = "conversation.deleted"


class ConversationForked(EventData):
    """This conversation continues another from that version on."""

    event_type: Literal["conversation.forked"] = "conversation.forked"
    source_conversation_id: UUID
    source_version: Annotated[int, Field(ge=1)]
    name: Name | None = None
    metadata: Json | None = None


class ConversationShared(EventData):
    """From now on a user may see a conversation, or also append to it. Only who owns the conversation shares it."""

    event_type: Literal["conversation.shared"] = "conversation.shared"
    user: UserName
    access: Literal["read", "write"]


class ConversationUnshared(EventData):
    """From now on a user may no longer see a conversation. Nothing takes it from its owner."""

    event_type: Literal["conversation.unshared"] = "conversation.unshared"
    user: UserName


class MessageAdded(EventData):
    """A message. Its id in the read tables is the id of its event.

    A message is kept as it was sent, see :mod:`eventstore.message_format`: ``content`` is its text and absent where it
    was sent as ``parts``; ``extra`` holds the members of the message that have no place of their own; ``sent_order``
    the places of its members in the order sent, counted as in the sequence role, content, parts, metadata, extra, if
    that is another. One that ``awaits_answer`` is pending until :class:`MessageAnswered`.
    """

    event_type: Literal["message.added"] = "message.added"
    role: RoleWord
    content: str | None = None
    parts: list[Any] | None = None
    given_id: str | None = None
    extra: Json | None = None
    metadata: Json | None = None
    sent_order: list[Any] | None = None
    awaits_answer: bool | None = None


class MessageAnswered(EventData):
    """Nothing more is to be expected in answer to a message that awaited one; it was pending until now.

    ``message_id`` is the id of the message's event, ``task_id`` that of the task which the answer began or continued.
    """

    event_type: Literal["message.answered"] = "message.answered"
    message_id: UUID
    outcome: Literal["answered", "failed", "abandoned"]
    error: str | None = None
    task_id: UUID | None = None


class AgentRegistered(EventData):
    """An agent can be asked. ``card`` is what it says of itself, as it came."""

    event_type: Literal["agent.registered"] = "agent.registered"
    url: str
    card: Json


class AgentUnregistered(EventData):
    """An agent is not asked any more."""

    event_type: Literal["agent.unregistered"] = "agent.unregistered"
    url: str


class TaskCreated(EventData):
    """An agent took on a task. ``extra`` holds members of the task, as sent, that have no place of their own."""

    event_type: Literal["task.created"] = "task.created"
    task_id: UUID
    description: str = ""
    status: StatusWord = TaskStatus.PENDING
    given_id: str | None = None
    extra: Json | None = None
    metadata: Json | None = None


class TaskStatusChanged(EventData):
    """A task has another status; ``message`` is what the agent said of it, as sent.

    ``extra`` holds further members of the status; ``update`` those of the update that carried it.
    """

    event_type: Literal["task.status_changed"] = "task.status_changed"
    task_id: UUID
    status: StatusWord
    message: Json | None = None
    extra: Json | None = None
    update: Json | None = None
    metadata: Json | None = None


class TaskDescribed(EventData):
    """A task has another description, other metadata, or other members that have no place of their own.

    ``history`` holds messages that follow on the member ``history`` as it was, so that a growing history is stored
    once. With it, ``extra`` replaces all other members, and the history only if it holds one. What is None stays.
    """

    event_type: Literal["task.described"] = "task.described"
    task_id: UUID
    description: str | None = None
    extra: Json | None = None
    history: list[Any] | None = None
    metadata: Json | None = None


class _Artifact(EventData):
    # An artifact is whole once a chunk is the last one, or its task is completed: agents need not mark the last chunk.
    task_id: UUID
    artifact_id: str
    parts: list[Any]
    name: str | None = None
    description: str | None = None
    last_chunk: bool = True
    extra: Json | None = None
    update: Json | None = None
    metadata: Json | None = None


class TaskArtifactAdded(_Artifact):
    """A task produced an artifact, or the first chunk of one. It takes the place of an earlier one of its id."""

    event_type: Literal["task.artifact_added"] = "task.artifact_added"


class TaskArtifactExtended(_Artifact):
    """A further chunk of an artifact. If it ``continues_text``, the text of its first part belongs to the last part."""

    event_type: Literal["task.artifact_extended"] = "task.artifact_extended"
    continues_text: bool | None = None


class _WholeContent(EventData):
    """An event that keeps its content as one value."""

    content: Any = None

    def to_content(self) -> Any:
        """Return the content as it was given."""
        return self.content

    def member_order(self) -> Any:
        """Return the order of the members in the content; None is the stored one."""
        return encode(self.content)

    def restore_order(self, order: object) -> None:
        """Bring the members in the content, as it was read, into that order, in place."""
        if isinstance(order, dict) and isinstance(self.content, dict):
            restore_members(self.content, order)
        else:
            restore(self.content, order)


class ApplicationEvent(_WholeContent):
    """An event of the application's own, with a name of its own and any JSON value as its content."""

    event_type: Annotated[str, Field(min_length=1, max_length=100)]

    def __init__(self, event_type: str, content: Any = None) -> None:
        super().__init__(event_type=event_type, content=content)
        check_text(event_type, "event_type")
        if event_type.startswith(RESERVED_PREFIXES):
            raise InvalidEvent(
                "event_type",
                f"{event_type!r} begins like the built-in events: choose a name that begins with none of "
                + ", ".join(RESERVED_PREFIXES),
            )

    @classmethod
    def from_content(cls, event_type: str, content: Any) -> Self:
        """The event with that name and content."""
        return cls(event_type, content)


class UnknownEvent(_WholeContent):
    """An event that a newer version of this vocabulary wrote. Its content is kept as it is."""

    event_type: Annotated[str, Field(min_length=1, max_length=100)]
    schema_version: int = SCHEMA_VERSION


BuiltInEvent = Annotated[
    ConversationCreated
    | ConversationRenamed
    | ConversationArchived
    | ConversationReactivated
    | ConversationDeleted
    | ConversationForked
    | ConversationShared
    | ConversationUnshared
    | MessageAdded
    | MessageAnswered
    | AgentRegistered
    | AgentUnregistered
    | TaskCreated
    | TaskStatusChanged
    | TaskDescribed
    | TaskArtifactAdded
    | TaskArtifactExtended,
    Field(discriminator="event_type"),
]
"""The built-in events, told apart by ``event_type``."""

BUILT_IN: TypeAdapter[BuiltInEvent] = TypeAdapter(BuiltInEvent)
"""Validates and describes (JSON Schema) the built-in events."""

_BUILT_IN: tuple[type[EventData], ...] = get_args(get_args(BuiltInEvent)[0])
_KINDS = {kind.model_fields["event_type"].default: kind for kind in _BUILT_IN}


def parse(event_type: str, schema_version: int, content: Any) -> EventData:
    """The typed event that a row of the log holds.

    Never fails: what this version cannot read as one of its own events is an :class:`UnknownEvent`.
    """
    kind = _KINDS.get(event_type)
    try:
        if kind is not None:
            return kind.from_content(event_type, content)
        if not event_type.startswith(RESERVED_PREFIXES):
            return ApplicationEvent.from_content(event_type, content)
    except (InvalidEvent, ValidationError, TypeError):
        pass  # another shape than ours: kept whole below
    return UnknownEvent(event_type=event_type, content=content, schema_version=schema_version)


def parse_json(event_type: str, schema_version: int, text: bytes) -> EventData:
    """The same from the content as JSON, of which pydantic makes a new instance without making a dict first."""
    with suppress(KeyError, ValidationError):  # the longer way below knows more types and shapes
        kind = _KINDS[event_type]
        event: EventData = kind.__pydantic_validator__.validate_json(text, self_instance=kind.__new__(kind))
        return event
    return parse(event_type, schema_version, load(text))


def is_built_in(event: EventData) -> bool:
    """Whether the event's type is one of this version's own."""
    return event.event_type in _KINDS
