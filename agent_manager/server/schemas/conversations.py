"""Models of conversations, messages and tasks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from agent_manager.a2a import Json
from agent_manager.server.schemas.common import In, NewestFirst, Out, PageOut, PageQuery, Time
from eventstore import Role, TaskStatus

Erased = Annotated[bool, Field(description="Whether its content was erased.")]
Name = Annotated[str, Field(max_length=255)]
Actor = Annotated[str, Field(max_length=255, description="The actor who causes the change.")]
BEGIN = "Begins the conversation, with the id in the path, if it does not exist."
ExpectedVersion = Annotated[
    int | None,
    Field(ge=0, lt=2**31, description="409 unless the conversation is at this version."),
]


class ConversationOut(Out):
    """A conversation."""

    id: UUID
    given_id: str | None = Field(description="The id that its client gave it, if that is not a UUID.")
    name: str
    is_active: bool = Field(description="False if it is archived.")
    is_deleted: bool = Field(description="Whether it is deleted; lists hide it then.")
    created_at: AwareDatetime
    updated_at: AwareDatetime
    message_count: int
    version: int = Field(description="The version of its last event.")
    metadata: Json | None
    forked_from: Json | None
    is_erased: Erased


class ConversationRef(Out):
    """A conversation, for callers without the scope `read`."""

    id: UUID


class ConversationPage(PageOut):
    """A page of conversations."""

    items: list[ConversationOut]


Deleted = Annotated[bool, Field(description="Include those of deleted conversations.")]


class ConversationQuery(PageQuery):
    """The filters of a list of conversations."""

    newest_first: NewestFirst = True
    by: Literal["updated", "created"] = Field("updated", description="The time that orders the list.")
    active: bool | None = Field(None, description="Only active, or only archived conversations.")
    deleted: bool = Field(False, description="Include deleted conversations.")
    actor: str | None = Field(None, description="Only conversations in which this actor caused an event.")


class NewConversation(In):
    """A conversation to create."""

    id: str | None = Field(None, min_length=1, max_length=1000, description="An id of your choice; a UUID by default.")
    name: Name = ""
    metadata: Json | None = None
    actor: Actor = ""


class ConversationChange(In):
    """The members to change."""

    name: Name | None = None
    is_active: bool | None = Field(None, description="False archives it; true reactivates it, and undoes a deletion.")
    actor: Actor = ""
    expected_version: ExpectedVersion = None

    @model_validator(mode="after")
    def _check_not_empty(self) -> ConversationChange:
        if self.name is None and self.is_active is None:
            raise ValueError("nothing to change: give name or is_active")
        return self


class MessageOut(Out):
    """A message."""

    id: UUID
    conversation_id: UUID
    given_id: str | None = Field(description="The id that its client gave it.")
    version: int = Field(description="The version of its event in the conversation.")
    role: Role
    actor: str
    content: str = Field(description="The text of the message.")
    created_at: AwareDatetime
    status: Literal["pending", "answered", "failed", "abandoned"] | None = Field(
        description="The status of its answer; null if it awaits none."
    )
    error: str | None = Field(description="Why the answer failed or was abandoned, or what was not stored of it.")
    sent: Json = Field(description="The message as it was sent.")
    is_erased: Erased


class MessagePage(PageOut):
    """A page of messages."""

    items: list[MessageOut]


class MessageQuery(PageQuery):
    """The filters of a list of messages."""

    role: Role | None = None
    actor: str | None = None


class AllMessageQuery(MessageQuery):
    """The filters of a list of the messages of all conversations."""

    deleted: Deleted = False


class ConversationMessageQuery(MessageQuery):
    """The filters of a list of the messages of a conversation."""

    after_version: int | None = Field(None, ge=0, lt=2**31, description="Only its own messages after this version.")


class SendMessageQuery(In):
    """Options of a message that is sent."""

    begin: bool = Field(False, description=BEGIN)
    name: Name = Field("", description="The name of the conversation if the message begins it.")

    @model_validator(mode="after")
    def _check_name_has_begin(self) -> Self:
        if self.name and not self.begin:
            raise ValueError("name: is for a conversation that the message begins: send begin=true with it")
        return self


class AppendMessageQuery(SendMessageQuery):
    """Options of a message that is appended."""

    actor: Actor = ""
    expected_version: ExpectedVersion = None


class Chunk(Out):
    """A chunk of an artifact."""

    artifact_id: str
    extends: bool = Field(description="Whether it continues the previous chunk.")
    last_chunk: bool = Field(
        description="Whether it is marked as the last. The artifact is complete then, or when its task is completed."
    )
    continues_text: bool = Field(description="Whether the text of its first part continues that of the previous chunk.")
    name: str | None
    description: str | None
    parts: list[Any]
    extra: Json | None
    metadata: Json | None


class TaskOut(Out):
    """A task."""

    id: UUID
    conversation_id: UUID
    given_id: str | None = Field(description="The id that its agent gave it.")
    version: int
    status: TaskStatus
    description: str
    status_message: Json | None = Field(description="The message that came with its status.")
    created_at: AwareDatetime
    updated_at: AwareDatetime
    metadata: Json | None
    artifacts: list[Chunk]
    extra: Json | None = Field(description="Further members as its agent sent them, such as its history.")
    status_extra: Json | None = Field(description="Further members of its status as its agent sent them.")
    is_erased: Erased


class TaskPage(PageOut):
    """A page of tasks."""

    items: list[TaskOut]


class TaskQuery(PageQuery):
    """The filters of a list of tasks."""

    status: TaskStatus | None = None


class AllTaskQuery(TaskQuery):
    """The filters of a list of the tasks of all conversations."""

    deleted: Deleted = False


class StateOut(Out):
    """A conversation with all its messages and tasks, now or at a point in the past."""

    conversation: ConversationOut
    messages: list[MessageOut]
    tasks: list[TaskOut]


class StateQuery(In):
    """The point in the past; now by default."""

    version: int | None = Field(None, ge=1, lt=2**31)
    position: int | None = Field(None, ge=1, lt=2**63)
    time: Time | None = Field(None, description="What the log held at this time.")

    @model_validator(mode="after")
    def _check_at_most_one(self) -> StateQuery:
        if len(self.model_dump(exclude_none=True)) > 1:
            raise ValueError("give at most one of version, position and time")
        return self
