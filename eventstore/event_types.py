"""The event vocabulary: all built-in event types, as a discriminated union of pydantic models.

Every limit of the read tables is enforced here, before an event is appended, so that no built-in event can fail in a
projection. Members that a newer version added to a known event are kept (``model_extra``); events of a type that this
version does not know are read as :class:`UnknownEvent`. Both are written back unchanged.

The size of an event is limited by the setting ``max_content_bytes``, and its depth by :mod:`eventstore.json_text`, for
events of every type; :class:`~eventstore.append.AppendRequest` applies both.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from eventstore.errors import InvalidEvent
from eventstore.json_text import check_text, from_json
from eventstore.member_order import encode, encode_members


class Role(StrEnum):
    """The role of the author of a message. A2A's ``agent`` is stored as ``assistant``."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"


class TaskStatus(StrEnum):
    """The state of an A2A task; ``submitted`` is stored as ``pending``, ``working`` as ``in_progress``."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INPUT_REQUIRED = "input-required"
    AUTH_REQUIRED = "auth-required"
    CANCELED = "canceled"
    FAILED = "failed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


if TYPE_CHECKING:  # callers may pass the text of a member; pydantic converts it
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


class EventData(BaseModel):
    """The base class of the content of all events. Raises :class:`InvalidEvent` if a value does not fit."""

    model_config = ConfigDict(extra="allow", frozen=True)

    event_type: str

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _invalid(type(self).__name__, error) from None

    def to_content(self) -> Any:
        """Return the content as plain JSON values, without members that are None."""
        content: dict[str, Any] = {
            name: str(value) if isinstance(value, (UUID, StrEnum)) else value
            for name, value in self.__dict__.items()
            if value is not None and name != "event_type"
        }
        return content | self.model_extra if self.model_extra else content

    def member_order(self) -> Any:
        """Return the order of the members in the content (:mod:`eventstore.member_order`); None for the stored one."""
        return encode_members(self.__dict__ | self.model_extra if self.model_extra else self.__dict__)

    @classmethod
    def from_content(cls, event_type: str, content: Any) -> Self:
        """Return the event of this class with a stored content."""
        return cls.model_validate({**content, "event_type": event_type})


def _invalid(name: str, error: ValidationError) -> InvalidEvent:
    first = error.errors(include_url=False)[0]
    path = ".".join(map(str, (name, *first["loc"])))
    value = f", got {first['input']!r:.80}" if first["type"] != "missing" else ""
    return InvalidEvent(path, f"{first['msg']}{value}")


# The built-in events

SCHEMA_VERSION = 1
"""The version of the models below; stored with every event."""

RESERVED_PREFIXES = ("agent.", "conversation.", "message.", "task.", "tenant.", "eventstore.")
"""Prefixes of the event types that belong to this vocabulary, now or in future."""


class ConversationCreated(EventData):
    """A conversation began. ``given_id`` is its id as the client sent it, if that was not a UUID."""

    event_type: Literal["conversation.created"] = "conversation.created"
    name: Name = ""
    given_id: str | None = None
    metadata: dict[str, Any] | None = None


class ConversationRenamed(EventData):
    """A conversation was renamed."""

    event_type: Literal["conversation.renamed"] = "conversation.renamed"
    name: Name


class ConversationArchived(EventData):
    """A conversation was archived: it is not active any more."""

    event_type: Literal["conversation.archived"] = "conversation.archived"


class ConversationReactivated(EventData):
    """A conversation was reactivated: it is active, and not deleted any more."""

    event_type: Literal["conversation.reactivated"] = "conversation.reactivated"


class ConversationDeleted(EventData):
    """A conversation was deleted: it is hidden and accepts no further events until it is reactivated.

    Its events remain.
    """

    event_type: Literal["conversation.deleted"] = "conversation.deleted"


class ConversationRewound(EventData):
    """A conversation went back to a version: what it held after that is hidden, and it goes on from there.

    Hidden are the messages, the tasks that began after the version, artifacts and texts; their events remain. It needs
    the right to delete the conversation.
    """

    event_type: Literal["conversation.rewound"] = "conversation.rewound"
    to_version: Annotated[int, Field(ge=0, le=999_999_999)]


class ConversationForked(EventData):
    """The conversation was forked from another one, which it continues from a version on.

    It is the first event of a fork. Reads of the fork begin with what that conversation held at that version.
    """

    event_type: Literal["conversation.forked"] = "conversation.forked"
    source_conversation_id: UUID
    source_version: Annotated[int, Field(ge=0)]
    name: Name | None = None
    metadata: dict[str, Any] | None = None


class ConversationShared(EventData):
    """A conversation was shared: a user may read it, or also append to it. Only its owner may share it."""

    event_type: Literal["conversation.shared"] = "conversation.shared"
    user: UserName
    access: Literal["read", "write"]


class ConversationUnshared(EventData):
    """A user lost access to a conversation. Its owner cannot lose access."""

    event_type: Literal["conversation.unshared"] = "conversation.unshared"
    user: UserName


class _Receipt(EventData):
    # Only an erasure appends it.
    versions: list[list[int]]
    until: str
    erases_members: bool = False
    reason: str = ""


class ConversationErased(_Receipt):
    """The receipt of an erasure of a conversation up to then; its actor is who erased it.

    ``versions`` are the first and the last version of each range that was erased, ``until`` is the time of the latest
    of these events, and ``erases_members`` tells whether the names of members were erased, too.
    """

    event_type: Literal["conversation.erased"] = "conversation.erased"


class EventErased(_Receipt):
    """The receipt of an erasure of single events; see :class:`ConversationErased`."""

    event_type: Literal["event.erased"] = "event.erased"


RECEIPTS = ("conversation.erased", "event.erased")
"""The types of the receipts of erasures."""


class MessageAdded(EventData):
    """A message was added. Its id in the read tables is the id of this event.

    The message is kept as it was sent (:mod:`eventstore.message_format`): ``content`` is its text, absent if it was
    sent as ``parts``; ``extra`` holds the members without a field here; ``sent_order`` is the order of its members, as
    indices into the sequence role, content, parts, metadata, extra, if it is another one. A message that
    ``awaits_answer`` is pending until :class:`MessageAnswered`.
    """

    event_type: Literal["message.added"] = "message.added"
    role: RoleWord
    content: str | None = None
    parts: list[Any] | None = None
    given_id: str | None = None
    extra: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    sent_order: list[Any] | None = None
    awaits_answer: bool | None = None


class MessageAnswered(EventData):
    """A pending message was answered, or its answer will not come.

    ``message_id`` is the id of the message's event, ``task_id`` the id of the task that the answer began or continued.
    """

    event_type: Literal["message.answered"] = "message.answered"
    message_id: UUID
    outcome: Literal["answered", "failed", "abandoned"]
    error: str | None = None
    task_id: UUID | None = None


class AgentRegistered(EventData):
    """An agent was registered. ``card`` is its agent card as received."""

    event_type: Literal["agent.registered"] = "agent.registered"
    url: str
    card: dict[str, Any]


class AgentUnregistered(EventData):
    """An agent was unregistered."""

    event_type: Literal["agent.unregistered"] = "agent.unregistered"
    url: str


class TaskCreated(EventData):
    """A task was created. ``extra`` holds the members of the task, as sent, without a field here."""

    event_type: Literal["task.created"] = "task.created"
    task_id: UUID
    description: str = ""
    status: StatusWord = TaskStatus.PENDING
    given_id: str | None = None
    extra: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class TaskStatusChanged(EventData):
    """The status of a task changed. ``message`` is the agent's message about it, as sent.

    ``extra`` holds further members of the status, ``update`` those of the update event that contained it.
    """

    event_type: Literal["task.status_changed"] = "task.status_changed"
    task_id: UUID
    status: StatusWord
    message: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    update: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class TaskDescribed(EventData):
    """The description, the metadata or other members of a task changed. Members that are None did not change.

    ``history`` holds messages to append to the member ``history``, so that a growing history is stored once. With it,
    ``extra`` replaces all other members, and the history only if it contains one.
    """

    event_type: Literal["task.described"] = "task.described"
    task_id: UUID
    description: str | None = None
    extra: dict[str, Any] | None = None
    history: list[Any] | None = None
    metadata: dict[str, Any] | None = None


class _Artifact(EventData):
    # An artifact is complete once it has a last chunk or its task is completed: agents need not mark the last chunk.
    task_id: UUID
    artifact_id: str
    parts: list[Any]
    name: str | None = None
    description: str | None = None
    last_chunk: bool = True
    extra: dict[str, Any] | None = None
    update: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class TaskArtifactAdded(_Artifact):
    """A task produced an artifact, or its first chunk. It replaces an earlier artifact with the same id."""

    event_type: Literal["task.artifact_added"] = "task.artifact_added"


class TaskArtifactExtended(_Artifact):
    """A task produced a further chunk of an artifact.

    If it ``continues_text``, the text of its first part continues that of the artifact's last part.
    """

    event_type: Literal["task.artifact_extended"] = "task.artifact_extended"
    continues_text: bool | None = None


class TaskDeleted(EventData):
    """A task was deleted: it is hidden with its artifacts until a later event begins it again. Its events remain."""

    event_type: Literal["task.deleted"] = "task.deleted"
    task_id: UUID


class TaskCancelRequested(EventData):
    """The cancellation of a task was requested from the agent. Its answer is the status of the task that follows."""

    event_type: Literal["task.cancel_requested"] = "task.cancel_requested"
    task_id: UUID


class TaskPushNotificationSet(EventData):
    """Notifications of the changes of a task to a URL were requested. ``config`` is the setting without its secrets."""

    event_type: Literal["task.push_notification_set"] = "task.push_notification_set"
    task_id: UUID
    config_id: str
    config: dict[str, Any]


class TaskPushNotificationDeleted(EventData):
    """Notifications of the changes of a task to a URL were ended."""

    event_type: Literal["task.push_notification_deleted"] = "task.push_notification_deleted"
    task_id: UUID
    config_id: str


class _WholeContent(EventData):
    """An event whose content is one value."""

    content: Any = None

    def to_content(self) -> Any:
        """Return the content."""
        return self.content

    def member_order(self) -> Any:
        """Return the order of the members in the content; None for the stored one."""
        return encode(self.content)


class ApplicationEvent(_WholeContent):
    """An event that the application defines, with any JSON value as its content."""

    event_type: Annotated[str, Field(min_length=1, max_length=100)]

    def __init__(self, event_type: str, content: Any = None) -> None:
        super().__init__(event_type=event_type, content=content)
        check_text(event_type, "event_type")
        if event_type.startswith(RESERVED_PREFIXES):
            raise InvalidEvent(
                "event_type",
                f"{event_type!r} begins with a prefix of the built-in events: choose a name that begins with none of "
                + ", ".join(RESERVED_PREFIXES),
            )

    @classmethod
    def from_content(cls, event_type: str, content: Any) -> Self:
        """Return the event with this name and content."""
        return cls(event_type, content)


class UnknownEvent(_WholeContent):
    """An event that a newer version of this vocabulary wrote. Its content is kept unchanged."""

    event_type: Annotated[str, Field(min_length=1, max_length=100)]
    schema_version: int = SCHEMA_VERSION


BuiltInEvent = Annotated[
    ConversationCreated
    | ConversationRenamed
    | ConversationArchived
    | ConversationReactivated
    | ConversationDeleted
    | ConversationRewound
    | ConversationForked
    | ConversationShared
    | ConversationUnshared
    | ConversationErased
    | EventErased
    | MessageAdded
    | MessageAnswered
    | AgentRegistered
    | AgentUnregistered
    | TaskCreated
    | TaskStatusChanged
    | TaskDescribed
    | TaskArtifactAdded
    | TaskArtifactExtended
    | TaskDeleted
    | TaskCancelRequested
    | TaskPushNotificationSet
    | TaskPushNotificationDeleted,
    Field(discriminator="event_type"),
]
"""The union of the built-in events, discriminated by ``event_type``."""

BUILT_IN: TypeAdapter[BuiltInEvent] = TypeAdapter(BuiltInEvent)
"""Validates and describes (JSON Schema) the built-in events."""

_CLASSES: dict[str, type[EventData]] = {
    event_class.model_fields["event_type"].default: event_class for event_class in get_args(get_args(BuiltInEvent)[0])
}


def parse(event_type: str, schema_version: int, content: Any) -> EventData:
    """Return the typed content of a stored event.

    It never fails: an event that this version cannot read as a built-in one is an :class:`UnknownEvent`.
    """
    event_class = _CLASSES.get(event_type)
    try:
        if event_class is not None:
            return event_class.from_content(event_type, content)
        if not event_type.startswith(RESERVED_PREFIXES):
            return ApplicationEvent.from_content(event_type, content)
    except (InvalidEvent, ValidationError, TypeError):
        pass  # of another shape: it is kept below
    return UnknownEvent(event_type=event_type, content=content, schema_version=schema_version)


def parse_json(event_type: str, schema_version: int, text: bytes) -> EventData:
    """Do what :func:`parse` does, from JSON; for built-in events without building a dict first, which is faster."""
    with suppress(KeyError, ValidationError):
        cls = _CLASSES[event_type]
        event: EventData = cls.__pydantic_validator__.validate_json(text, self_instance=cls.__new__(cls))
        return event
    return parse(event_type, schema_version, from_json(text))


def is_built_in(event: EventData) -> bool:
    """Return whether this version has a class for the type of an event."""
    return event.event_type in _CLASSES
