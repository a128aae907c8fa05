"""Reading the read tables: conversations, messages and tasks as typed rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from eventstore import EventStore, Role, TaskStatus, conversation_uuid
from eventstore.append import checked_tenant
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound
from eventstore.ids import parse_uuid
from eventstore.sent import sent_from_row

_CONVERSATIONS = query("projections", "conversations")
_MESSAGES = query("projections", "messages")
_TASKS = query("projections", "tasks")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row of the table ``conversations``."""

    id: UUID
    name: str
    is_active: bool
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any] | None
    tenant_id: str
    given_id: str | None
    is_deleted: bool
    message_count: int
    version: int
    forked_from: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Message:
    """A row of the table ``messages``."""

    id: UUID
    conversation_id: UUID
    role: str
    content: str
    parts: list[Any] | None
    created_at: datetime
    metadata: dict[str, Any] | None
    tenant_id: str
    given_id: str | None
    version: int
    actor: str
    extra: dict[str, Any] | None

    @property
    def sent(self) -> dict[str, Any]:
        """The message as it was sent."""
        return sent_from_row(self.role, self.content, self.parts, self.metadata, self.extra)


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the table ``tasks``, with the chunks of its artifacts in order."""

    id: UUID
    conversation_id: UUID
    status: str
    description: str
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any] | None
    tenant_id: str
    given_id: str | None
    version: int
    status_message: dict[str, Any] | None
    artifacts: list[dict[str, Any]]


class Reader:
    """Reads the read tables of one tenant."""

    def __init__(self, store: EventStore, tenant: str | None = None) -> None:
        self._store = store
        self._tenant = store.tenant if tenant is None else checked_tenant(tenant)

    async def conversations(
        self, *, active: bool | None = None, deleted: bool = False, limit: int | None = None
    ) -> list[Conversation]:
        """Conversations, the latest updated first.

        Args:
            active: only active, or only archived ones.
            deleted: the hidden ones too.
            limit: at most so many.
        """
        return await self._conversations(None, active, deleted, limit)

    async def conversation(self, conversation: UUID | str) -> Conversation:
        """One conversation, hidden or not, by its id or by the id that its client gave it.

        Raises:
            NotFound: there is none.
        """
        candidates = [conversation] if isinstance(conversation, UUID) else self.candidates(conversation)
        for candidate in candidates:
            if found := await self._conversations(candidate, None, True, 1):
                return found[0]
        raise NotFound(f"no conversation has the id {str(conversation)!r}: eventstore conversations lists them")

    async def messages(
        self, conversation_id: UUID | str, *, after: int = 0, role: str | None = None, limit: int | None = None
    ) -> list[Message]:
        """The messages of a conversation in their order.

        Args:
            after: only those above this version of the conversation.
            role: only those of this role.
        """
        _known(role, Role, "role")
        parameters = self._of(conversation_id) | {"after": after, "role": role, "limit": limit}
        return [Message(*row) for row in await self._store.pool.fetch(_MESSAGES, parameters)]

    async def tasks(
        self, conversation_id: UUID | str, *, status: str | None = None, limit: int | None = None
    ) -> list[Task]:
        """The tasks of a conversation, the oldest first."""
        _known(status, TaskStatus, "status")
        parameters = self._of(conversation_id) | {"status": status, "limit": limit}
        return [Task(*row) for row in await self._store.pool.fetch(_TASKS, parameters)]

    async def _conversations(
        self, conversation_id: UUID | None, active: bool | None, deleted: bool, limit: int | None
    ) -> list[Conversation]:
        parameters = {
            "tenant": self._tenant,
            "id": conversation_id,
            "active": active,
            "deleted": deleted,
            "limit": limit,
        }
        return [Conversation(*row) for row in await self._store.pool.fetch(_CONVERSATIONS, parameters)]

    def _of(self, conversation_id: UUID | str) -> dict[str, Any]:
        return {"tenant": self._tenant, "conversation_id": parse_uuid(conversation_id, "conversation_id")}

    def candidates(self, text: str) -> list[UUID]:
        """The ids of the conversations that a text may name: a UUID in any of its forms, or a client's own id."""
        named = conversation_uuid(self._tenant, text)
        try:
            return list(dict.fromkeys([named, UUID(text)]))
        except ValueError:
            return [named]


def _known(word: str | None, words: type[Role] | type[TaskStatus], what: str) -> None:
    if word is not None and word not in list(words):
        raise InputError(f"{what}: {word!r} is unknown: choose among {', '.join(words)}")
