"""Legal holds: what must not be erased, neither on request nor by a rule (``db/schema/retention/legal_holds.sql``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from eventstore import EventStore
from eventstore.administration import administrator, set_administrator
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound, translated
from eventstore.json_text import check_text
from eventstore.scope import Caller

PACKAGE = "agent_manager.retention"
MAX_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold on a conversation, on a user, or on the whole tenant if both are None.

    Attributes:
        user: the conversations that they own, and those with events that they caused.
        placed_by: the actor who placed it.
    """

    id: UUID
    conversation_id: UUID | None
    user: str | None
    reason: str
    placed_by: str
    placed_at: datetime

    @property
    def subject(self) -> str:
        """The conversation, the user or the tenant that the hold is on, in words."""
        if self.conversation_id is not None:
            return f"conversation {self.conversation_id}"
        return "the whole tenant" if self.user is None else f"user {self.user}"


class Holds:
    """The legal holds of a tenant.

    Args:
        tenant: the store's own if left out.
    """

    def __init__(self, store: EventStore, tenant: str | None = None) -> None:
        self._store = store
        self._caller = store.caller(tenant)

    async def place(
        self,
        *,
        conversation_id: UUID | None = None,
        user: str | None = None,
        reason: str,
        actor: str = "",
        hold_id: UUID | None = None,
    ) -> Hold:
        """Place a hold on a conversation, on a user, or on the whole tenant if neither is given.

        Once this has returned, nothing that it covers is erased until it is released. A hold on a fork also covers what
        the fork shares with the conversations that it continues.

        Args:
            hold_id: its id, with which the call can be repeated; a new one by default.

        Raises:
            InputError: both are given, or there is no reason.
            NotFound: the conversation does not exist.
        """
        if conversation_id is not None and user is not None:
            raise InputError("a hold is on a conversation or on a user: place two holds for both")
        if user is not None:
            Caller(self._caller.tenant, user)  # checks the name
        if not reason.strip():
            raise InputError("reason: is empty: say why nothing may be erased, such as the number of the case")
        check_reason(reason)
        given = {
            "id": hold_id or uuid4(),
            "conversation": conversation_id,
            "user": user,
            "reason": reason,
            "actor": actor,
        }
        rows = await change(self._store, self._caller, "place_hold", given)
        if not rows:
            raise NotFound(f"conversation {conversation_id} does not exist: eventstore conversations lists them")
        return Hold(*rows[0])

    async def release(self, hold: UUID, *, reason: str = "", actor: str = "") -> Hold:
        """Release a hold, and return it.

        Raises:
            NotFound: the tenant has no such hold.
        """
        check_reason(reason)
        rows = await change(self._store, self._caller, "release_hold", {"id": hold, "reason": reason, "actor": actor})
        if not rows:
            raise NotFound(f"hold {hold} does not exist, or was released: eventstore hold list shows those in force")
        return Hold(*rows[0])

    async def list(self) -> list[Hold]:
        """Return the holds in force, the oldest first."""
        parameters = {"tenant": self._caller.tenant}
        rows = await self._store.pool.fetch(query(PACKAGE, "holds"), parameters, caller=self._caller)
        return [Hold(*row) for row in rows]


def check_reason(reason: str) -> None:
    """Check that a reason can be stored. Raises InvalidEvent."""
    check_text(reason, "reason", longest=MAX_REASON_CHARACTERS)


async def change(store: EventStore, caller: Caller, name: str, given: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Run a statement that changes holds or rules of a tenant, once, and return its rows.

    Without an actor it is the administrator who acts (:mod:`eventstore.administration`).
    """
    given["actor"] = given["actor"] or administrator().actor
    check_text(given["actor"], "actor", longest=255)
    with translated():
        async with store.pool.transaction(caller) as connection:
            await set_administrator(connection)
            cursor = await connection.execute(query(PACKAGE, name), {"tenant": caller.tenant, **given})
            return await cursor.fetchall()
