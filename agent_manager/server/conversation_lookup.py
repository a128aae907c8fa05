"""Lookups of the conversation that a request names, and of those that its caller may see."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from psycopg.types.numeric import Int8

from eventstore.database.queries import query
from eventstore.errors import conversation_not_found
from eventstore.events import HIGHEST_POSITION
from eventstore.tracing import set_conversation
from projections import Reader

_RESOLVE = query("agent_manager.server", "resolve")
_VISIBLE_IDS = query("agent_manager.server", "visible_ids")


@dataclass(frozen=True, slots=True)
class ResolvedConversation:
    """A conversation, its version, and whether it is deleted.

    Attributes:
        is_fork: Whether it shares what other conversations hold, whose members and deletion decide whether it is shown.
    """

    id: UUID
    version: int
    is_deleted: bool
    is_fork: bool


async def resolve(
    reader: Reader, conversation: UUID | str, position: int = HIGHEST_POSITION
) -> ResolvedConversation | None:
    """Return the conversation that an id names, as it was at a position; None if there is none.

    For a user, the look-up takes the same steps whether the conversation does not exist or is not visible to them.
    """
    caller = reader.caller
    parameters = {
        "tenant": caller.tenant,
        "user": caller.user,
        "ids": reader.candidates(conversation),
        "position": Int8(position),
    }
    rows = await reader.store.log(caller).fetch(_RESOLVE, parameters)
    if not rows:
        return None
    resolved = ResolvedConversation(*rows[0])
    set_conversation(resolved.id)
    return resolved


async def get_or_404(reader: Reader, conversation: UUID | str) -> ResolvedConversation:
    """Return the conversation that an id names.

    Raises:
        NotFound: There is none, or the caller may not see it.
    """
    resolved = await resolve(reader, conversation)
    if resolved is None:
        raise conversation_not_found(conversation)
    return resolved


async def visible_ids(reader: Reader, conversations: Collection[UUID]) -> set[UUID]:
    """Return the ids of the conversations that the reader's caller may see."""
    caller = reader.caller
    if caller.user is None or not conversations:
        return set(conversations)
    parameters = {"tenant": caller.tenant, "user": caller.user, "ids": list(conversations)}
    tables = reader.store.tables(caller, on_primary=True)  # a revoked permission takes effect at once
    return {row[0] for row in await tables.fetch(_VISIBLE_IDS, parameters)}
