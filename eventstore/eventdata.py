"""What all events of the vocabulary share, and the words in them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eventstore.errors import InvalidEvent
from eventstore.memberorder import encode_members, restore_members


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
        """Return the order of the members in the content, see :mod:`eventstore.memberorder`; None is the stored one."""
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
