"""Receipts of erasures outside of the database, and applying them to a log that was restored from before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from agent_manager.backup.archive import Archive
from agent_manager.backup.manifest import ErasureRecord
from eventstore import ConversationErased, Event, EventErased, EventStore
from eventstore.database.connection import Connection
from eventstore.database.queries import query_without
from eventstore.erasure import Selection, erase_again
from eventstore.errors import translated
from eventstore.read import RawRows
from eventstore.scope import ALL_TENANTS, Caller
from eventstore.times import parse_time

_ALL = query_without("eventstore", "receipts", frozenset({"tenant"}))


def record_of(event: Event) -> ErasureRecord:
    """Return the record of a receipt."""
    data = event.data
    assert isinstance(data, ConversationErased | EventErased)
    return ErasureRecord(
        id=event.id,
        tenant_id=event.tenant_id,
        conversation_id=event.conversation_id,
        is_whole=isinstance(data, ConversationErased),
        versions=tuple((first, last) for first, last in data.versions),
        until=parse_time(data.until, "until"),
        erases_members=data.erases_members,
        reason=data.reason,
        erased_at=event.timestamp,
    )


async def write_erasures(store: EventStore, archive: Archive) -> int:
    """Write the receipts in the log of all tenants that the archive does not have; return their number."""
    rows = await store.log(ALL_TENANTS).fetch(_ALL, cursor=RawRows)
    return await asyncio.to_thread(archive.write_erasures, [record_of(Event.from_row(row)) for row in rows])


async def apply_erasures(connection: Connection, store: EventStore, records: Iterable[ErasureRecord]) -> int:
    """Erase again what receipts name and a log still holds; return the number of conversations.

    Args:
        connection: in a transaction.
    """
    applied = 0
    with translated():
        for record in records:
            versions = "{" + ",".join(f"[{first},{last}]" for first, last in record.versions) + "}"
            selection = Selection(versions, record.until, record.erases_members, record.is_whole)
            caller = Caller(record.tenant_id)
            erasure = await erase_again(connection, store, caller, record.conversation_id, selection, record.reason)
            applied += erasure.events > 0
    return applied
