"""Receipts of erasures outside of the database, and applying them to a log that was restored from before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from agent_manager.backup.archive import Archive
from agent_manager.backup.manifest import ErasureRecord
from eventstore import ConversationErased, Event, EventErased, EventStore
from eventstore.database.connection import Connection
from eventstore.database.queries import query, query_without
from eventstore.erasure import Selection, erase_again
from eventstore.errors import translated
from eventstore.read import RawRows
from eventstore.scope import ALL_TENANTS, Caller
from eventstore.times import parse_time

RECEIPTS_NOT_IN_LOG = query("agent_manager.backup", "receipts_not_in_log")
RECEIPTS_NOT_APPLIED = query("agent_manager.backup", "receipts_not_applied")
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
            selection = Selection(record.multirange, record.until, record.erases_members, record.is_whole)
            caller = Caller(record.tenant_id)
            erasure = await erase_again(connection, store, caller, record.conversation_id, selection, record.reason)
            applied += erasure.events > 0
    return applied


async def unapplied_erasures(store: EventStore, archive: Archive) -> list[ErasureRecord]:
    """Return the receipts that the archive has of events that the log still holds: it was restored from before."""
    pool = store.connections.projector
    ids = await asyncio.to_thread(archive.erasure_ids)
    unknown = [each for (each,) in await pool.fetch(RECEIPTS_NOT_IN_LOG, {"ids": ids})]
    records = await asyncio.to_thread(archive.erasures, unknown)
    numbers = await pool.fetch(RECEIPTS_NOT_APPLIED, columns_of(records))
    return [records[number - 1] for (number,) in numbers]


def columns_of(records: Sequence[ErasureRecord]) -> dict[str, list[Any]]:
    """Return records as the columns that a statement takes."""
    return {
        "tenants": [record.tenant_id for record in records],
        "conversations": [record.conversation_id for record in records],
        "versions": [record.multirange for record in records],
        "untils": [record.until for record in records],
        "erase_members": [record.erases_members for record in records],
    }
