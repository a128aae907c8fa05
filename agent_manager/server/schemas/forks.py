"""Models of forks and comparisons."""

from __future__ import annotations

from typing import Any, Self
from uuid import UUID

from pydantic import Field, model_validator

from agent_manager.a2a import Json
from agent_manager.server.schemas.common import In, Out, PageOut
from agent_manager.server.schemas.conversations import Actor, ConversationOut, MessageOut, Name, TaskOut


class NewFork(In):
    """A fork to begin."""

    version: int | None = Field(
        None, ge=0, lt=2**31 - 1, description="The last version that the fork shares; by default the latest."
    )
    replaces: UUID | None = Field(
        None, description="The id of a message: the fork shares everything before it. Instead of `version`."
    )
    message: Json | None = Field(None, description="The first message of the fork, in any of the formats of messages.")
    id: UUID | None = Field(None, description="The id of the fork; a new one by default.")
    name: Name | None = Field(None, description="The name of the fork, which does not get that of this conversation.")
    metadata: Json | None = None
    actor: Actor = ""

    @model_validator(mode="after")
    def _check_one_place(self) -> Self:
        if self.version is not None and self.replaces is not None:
            raise ValueError("give version or replaces, not both")
        return self


class AncestorOut(Out):
    """A conversation whose messages and tasks another one shows, up to a version."""

    conversation_id: UUID
    last_version: int


class AncestryOut(PageOut):
    """A conversation and those that it continues."""

    items: list[AncestorOut]


class ComparisonQuery(In):
    """The other side of a comparison with a conversation."""

    other: str | None = Field(None, description="The other conversation; by default the same one.")
    version: int | None = Field(None, ge=1, lt=2**31, description="Of this conversation; the latest by default.")
    other_version: int | None = Field(None, ge=1, lt=2**31, description="Of the other one; the latest by default.")


class ComparisonOut(Out):
    """The differences between two conversations, or two versions of one."""

    first: ConversationOut
    second: ConversationOut
    shared: AncestorOut | None = Field(
        description="The last conversation that both show, and the version up to which; null if they share nothing."
    )
    conversation: dict[str, tuple[Any, Any]] = Field(description="The values of the members that differ.")
    removed: list[MessageOut] = Field(description="The messages that only the first shows.")
    added: list[MessageOut] = Field(description="The messages that only the second shows.")
    changed: list[tuple[MessageOut, MessageOut]] = Field(description="The messages whose answer differs.")
    removed_tasks: list[TaskOut]
    added_tasks: list[TaskOut]
    changed_tasks: list[tuple[TaskOut, TaskOut]]
