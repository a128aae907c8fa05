"""Default classes for applications that have none: A2A's as pydantic models that accept further members."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", alias_generator=to_camel, populate_by_name=True)


class Message(_Wire):
    """A message of either version of A2A."""

    role: str
    parts: list[Any] = Field(default_factory=list)
    message_id: str | None = None
    context_id: str | None = None
    task_id: str | None = None
    metadata: dict[str, Any] | None = None


class Task(_Wire):
    """A task of either version of A2A."""

    id: str
    context_id: str | None = None
    status: dict[str, Any] | None = None
    artifacts: list[Any] | None = None
    history: list[Any] | None = None
    metadata: dict[str, Any] | None = None


class AgentCard(_Wire):
    """An agent's card of either version of A2A."""

    name: str | None = None
    url: str | None = None


class Conversation(BaseModel):
    """A conversation with its messages, which are instances of the application's class."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    conversation_id: str
    is_active: bool
    name: str = ""
    task_ids: list[str] = Field(default_factory=list)
    messages: list[Any] = Field(default_factory=list)


class Event(BaseModel):
    """An event as a message that represents it; ``timestamp`` is in seconds since 1970."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    id: str
    actor: str = ""
    content: Any
    timestamp: float
