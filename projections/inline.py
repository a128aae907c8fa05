"""Inline projections: rows that exist the instant an append returns, because they are part of its transaction.

They have tables of their own, which no worker maintains. Such an append has its transaction to itself instead of
joining a batch, so a projection that fails refuses this append and no other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Self
from uuid import UUID, uuid4

import psycopg

from eventstore import ANY, Appended, AppendResult, Caller, EventData, EventStore, ExpectedVersion, NewEvent
from eventstore.append import (
    Append,
    AppendRequest,
    Beginning,
    append_or_begin,
    encode_expected,
    named_conversation,
)
from eventstore.database.connection import PROJECTOR, WRITER, Connection, set_role
from eventstore.database.pools import Pool
from eventstore.database.queries import query
from eventstore.errors import (
    ConversationIsDeleted,
    EventIdConflict,
    EventStoreError,
    StoreClosed,
    WrongExpectedVersion,
    translate,
)
from eventstore.ids import parse_uuid
from eventstore.tracing import append_span
from projections.custom_projections import create_missing_tables
from projections.projection import Projection

_BATCH_VIEW = query("projections", "batch_inline")
_APPEND = query("projections", "append_inline")
_SHOW_POSITIONS = query("projections", "show_positions")


class InlineAppender:
    """An appender that projects in the transaction of each append, over connections of its own.

    Open it with ``async with``.

    Args:
        connections: appends that can run at a time.
    """

    def __init__(self, store: EventStore, projections: Sequence[Projection], *, connections: int = 4) -> None:
        self._store = store
        self._projections = projections
        self._size = connections
        self._pool: Pool | None = None

    async def __aenter__(self) -> Self:
        await create_missing_tables(self._store, self._projections)
        self._pool = Pool(self._store.server.url, self._store.settings, WRITER, self._size, lambda error: error)
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def append(
        self,
        conversation_id: UUID | str,
        events: Sequence[EventData | NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        begin: Beginning | None = None,
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
    ) -> AppendResult:
        """Append as :meth:`eventstore.EventStore.append` does, and apply the projections to the new events.

        Raises:
            EventStoreError: as there; or a projection failed, and nothing was written.
        """
        caller = self._store.caller(tenant, user)
        with append_span([Append(conversation_id, events)]):
            if begin is None:
                target = parse_uuid(conversation_id, "conversation_id")
                return await self._append(target, actor, caller, events, expected)
            target, begin = named_conversation(caller.tenant, conversation_id, begin)
            append = partial(self._append, target, actor, caller)
            return await append_or_begin(append, Append(target, events, expected), begin)

    async def _append(
        self,
        target: UUID,
        actor: str,
        caller: Caller,
        events: Sequence[EventData | NewEvent],
        expected: ExpectedVersion,
    ) -> AppendResult:
        if self._pool is None:
            raise StoreClosed
        new = [event if isinstance(event, NewEvent) else NewEvent(event, uuid4(), actor) for event in events]
        request = AppendRequest(
            caller, [Append(target, new, expected)], self._store.settings.max_content_bytes
        ).encode()
        parameters = {
            "tenant": caller.tenant,
            "conversation_id": target,
            "expected": encode_expected(expected),
            "ids": [event.id for event in new],
            "types": [event.data.event_type for event in new],
            "versions": [event.schema_version for event in new],
            "actors": [event.actor for event in new],
            "contents": [row[4].decode() for row in request.rows],
            "metadatas": [row[5].decode() for row in request.rows],
        }
        try:
            async with self._pool.transaction(caller) as connection:
                rows = await (await connection.execute(_APPEND, parameters)).fetchall()
                if positions := [position for position, _, _, is_new in rows if is_new]:
                    await self._project(connection, positions)
        except psycopg.Error as error:
            raise _append_error(error, target, expected) from error
        return AppendResult([Appended(target, event.id, *row) for event, row in zip(new, rows, strict=True)])

    async def _project(self, connection: Connection, positions: list[int]) -> None:
        """Apply the projections under the projector's role until the transaction ends: writers can only append."""
        await set_role(connection, self._store.settings, PROJECTOR)
        await connection.execute(_BATCH_VIEW.encode())
        await connection.execute(_SHOW_POSITIONS, {"positions": positions})
        for projection in self._projections:
            await projection.fold(connection)


def _append_error(error: psycopg.Error, conversation_id: UUID, expected: ExpectedVersion) -> EventStoreError:
    if error.sqlstate == "ES001":
        return WrongExpectedVersion(conversation_id, expected, json.loads(error.diag.message_detail or "")["actual"])
    if error.sqlstate == "ES002":
        detail = json.loads(error.diag.message_detail or "")
        return EventIdConflict(conversation_id, detail["event_id"], detail["differences"])
    if error.sqlstate == "ES008":
        return ConversationIsDeleted(conversation_id)
    return translate(error)
