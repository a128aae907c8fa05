"""Conversations, messages and tasks."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from agent_manager.server.schemas.common import In, Json, NewestFirst, Out, PageOut, PageQuery, Since, Until
from eventstore import Role, TaskStatus

Name = Annotated[str, Field(max_length=255)]
Actor = Annotated[str, Field(max_length=255, description="Who causes it.")]
ExpectedVersion = Annotated[
    int | None, Field(ge=0, lt=2**31, description="409 unless the conversation is at this version.")
]


class ConversationOut(Out):
    """A conversation."""

    id: UUID
    given_id: str | None = Field(description="Its id as its client gave it, where that is no UUID.")
    name: str
    is_active: bool = Field(description="False once it was archived.")
    is_deleted: bool = Field(description="Whether it is hidden.")
    created_at: AwareDatetime
    updated_at: AwareDatetime
    message_count: int
    version: int = Field(description="Of its last event.")
    metadata: Json | None
    forked_from: Json | None


class ConversationRef(Out):
    """A conversation to callers without the scope `read`."""

    id: UUID


class ConversationPage(PageOut):
    """A page of conversations."""

    items: list[ConversationOut]


Deleted = Annotated[bool, Field(description="Those of deleted conversations too.")]


class ConversationQuery(PageQuery):
    """Which conversations."""

    newest_first: NewestFirst = True
    by: Literal["updated", "created"] = Field("updated", description="The time by which they are ordered.")
    active: bool | None = Field(None, description="Only active, or only archived ones.")
    deleted: bool = Field(False, description="The deleted ones too.")
    actor: str | None = Field(None, description="Only those in which this actor caused an event.")
    since: Since = None
    until: Until = None


class NewConversation(In):
    """A conversation to begin."""

    id: str | None = Field(None, min_length=1, max_length=1000, description="Of your own making; a UUID if left out.")
    name: Name = ""
    metadata: Json | None = None
    actor: Actor = ""


class ConversationChange(In):
    """What to change; what is left out stays."""

    name: Name | None = None
    is_active: bool | None = Field(None, description="False archives it; true takes that back, and shows it again.")
    actor: Actor = ""
    expected_version: ExpectedVersion = None

    @model_validator(mode="after")
    def _changes_something(self) -> ConversationChange:
        if self.name is None and self.is_active is None:
            raise ValueError("nothing to change: give name or is_active")
        return self


class MessageOut(Out):
    """A message."""

    id: UUID
    conversation_id: UUID
    given_id: str | None = Field(description="Its id as its client gave it.")
    version: int = Field(description="Its place among the events of the conversation.")
    role: Role
    actor: str
    content: str = Field(description="Its text.")
    created_at: AwareDatetime
    sent: Json = Field(description="The message as it was sent.")


class MessagePage(PageOut):
    """A page of messages."""

    items: list[MessageOut]


class MessageQuery(PageQuery):
    """Which messages."""

    role: Role | None = None
    actor: str | None = None
    since: Since = None
    until: Until = None


class AllMessageQuery(MessageQuery):
    """Which messages of all conversations."""

    deleted: Deleted = False


class ConversationMessageQuery(MessageQuery):
    """Which messages of a conversation."""

    after_version: int | None = Field(None, ge=0, lt=2**31, description="Only those above this version.")


class AppendMessageQuery(In):
    """How to append a message."""

    actor: Actor = ""
    expected_version: ExpectedVersion = None


class Chunk(Out):
    """A chunk of an artifact."""

    artifact_id: str
    extends: bool = Field(description="Whether it continues the chunk before.")
    last_chunk: bool = Field(
        description="Whether it is marked as the last. The artifact is whole then, and once its task is completed."
    )
    continues_text: bool = Field(description="Whether the text of its first part belongs to the last part before it.")
    name: str | None
    description: str | None
    parts: list[Any]
    extra: Json | None
    metadata: Json | None


class TaskOut(Out):
    """A task."""

    id: UUID
    conversation_id: UUID
    given_id: str | None = Field(description="Its id as its agent gave it.")
    version: int
    status: TaskStatus
    description: str
    status_message: Json | None = Field(description="What was said of its status.")
    created_at: AwareDatetime
    updated_at: AwareDatetime
    metadata: Json | None
    artifacts: list[Chunk]
    extra: Json | None = Field(description="Its further members as its agent sent them, such as its history.")
    status_extra: Json | None = Field(description="The further members of its status as its agent sent them.")


class TaskPage(PageOut):
    """A page of tasks."""

    items: list[TaskOut]


class TaskQuery(PageQuery):
    """Which tasks."""

    status: TaskStatus | None = None
    since: Since = None
    until: Until = None


class AllTaskQuery(TaskQuery):
    """Which tasks of all conversations."""

    deleted: Deleted = False


class StateOut(Out):
    """A conversation with all its messages and tasks, as it is or as it was."""

    conversation: ConversationOut
    messages: list[MessageOut]
    tasks: list[TaskOut]


class StateQuery(In):
    """As of when: one of them, or none for now."""

    version: int | None = Field(None, ge=1, lt=2**31)
    position: int | None = Field(None, ge=1, lt=2**63)
    time: AwareDatetime | None = Field(None, description="As the log knew it then.")

    @model_validator(mode="after")
    def _at_most_one(self) -> StateQuery:
        if len(self.model_dump(exclude_none=True)) > 1:
            raise ValueError("as of when? give at most one of version, position and time")
        return self
