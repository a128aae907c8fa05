"""Finds out which transactions hold the locks of conversations, for the error of an append that waited in vain."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from eventstore.batching import ConversationKey
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import LockHolder

_LOCK_HOLDERS = query("eventstore", "lock_holders")


async def lock_holders(
    connection: Connection, conversations: Sequence[ConversationKey]
) -> dict[ConversationKey, list[LockHolder]]:
    """Return the holders of each conversation that is locked now.

    Args:
        connection: of the login itself, which sees more of its other sessions than a role of the store.
    """
    parameters = {
        "tenants": [key[16:].decode() for key in conversations],
        "conversations": [UUID(bytes=key[:16]) for key in conversations],
    }
    holders: dict[ConversationKey, list[LockHolder]] = {}
    for number, *holder in await (await connection.execute(_LOCK_HOLDERS, parameters)).fetchall():
        holders.setdefault(conversations[number], []).append(LockHolder(*holder))
    return holders
