"""Inline projection: rows that are there the instant an append returns, because they are part of its transaction.

For tables of their own, which no worker follows. Such an append has its transaction to itself: it is not sent together
with others, so that a projection that fails refuses this append and no other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self
from uuid import UUID, uuid4

import psycopg

from eventstore import ANY, Appended, AppendResult, EventData, EventStore, ExpectedVersion, NewEvent
from eventstore.append import Append, EncodedAppend, encode_expected
from eventstore.database.binary_format import without_length
from eventstore.database.connection import PROJECTOR, WRITER, Connection, set_role
from eventstore.database.pools import Pool
from eventstore.database.queries import query
from eventstore.errors import (
    ConversationIsDeleted,
    EventIdConflict,
    EventStoreError,
    Forbidden,
    StoreClosed,
    WrongExpectedVersion,
    translate,
)
from eventstore.ids import parse_uuid
from projections.custom_projections import prepare
from projections.projection import Projection

_VIEW = query("projections", "batch_inline")
_APPEND = query("projections", "append_inline")
_SHOW = query("projections", "show_positions")


class InlineAppender:
    """Appends and projects in one transaction, over connections of its own."""

    def __init__(self, store: EventStore, projections: Sequence[Projection], *, connections: int = 4) -> None:
        """One that is not open yet; use ``async with``.

        Args:
            connections: appends that can be under way at a time.
        """
        self._store = store
        self._projections = projections
        self._size = connections
        self._pool: Pool | None = None

    async def __aenter__(self) -> Self:
        await prepare(self._store, self._projections)
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
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
    ) -> AppendResult:
        """Appends as :meth:`eventstore.EventStore.append` does, and applies the projections to what is new.

        Raises:
            EventStoreError: as there; or a projection failed, and nothing was written.
        """
        if self._pool is None:
            raise StoreClosed
        given = [event if isinstance(event, NewEvent) else NewEvent(event, uuid4(), actor) for event in events]
        target = parse_uuid(conversation_id, "conversation_id")
        caller = self._store.caller(tenant, user)
        batch = EncodedAppend(
            caller.tenant, [Append(target, given, expected)], self._store.settings.max_content_bytes
        ).encode()
        parameters = {
            "tenant": caller.tenant,
            "conversation_id": target,
            "expected": encode_expected(expected),
            **_columns(batch),
        }
        try:
            async with self._pool.transaction(caller) as connection:
                rows = await (await connection.execute(_APPEND, parameters)).fetchall()
                await self._project(connection, [position for position, _, _, is_new in rows if is_new])
        except psycopg.Error as error:
            raise _explained(error, target, expected) from error
        return AppendResult([Appended(target, event.id, *row) for event, row in zip(given, rows, strict=True)])

    async def _project(self, connection: Connection, positions: list[int]) -> None:
        """As the projector, from here to the end of the transaction: writers append, and that is all."""
        if positions:
            await set_role(connection, self._store.settings, PROJECTOR)
            await connection.execute(_VIEW.encode())
            await connection.execute(_SHOW, {"positions": positions})
            for projection in self._projections:
                await projection.fold(connection)


def _columns(batch: EncodedAppend) -> dict[str, list[Any]]:
    """The events of an append, as parameters."""
    ids, types, versions, actors, contents, metadatas = (
        [without_length(value) for value in column] for column in zip(*batch.rows, strict=True)
    )
    return {
        "ids": [UUID(bytes=value) for value in ids],
        "types": [value.decode() for value in types],
        "versions": [int.from_bytes(value, "big") for value in versions],
        "actors": [value.decode() for value in actors],
        "contents": [value[1:].decode() for value in contents],
        "metadatas": [value[1:].decode() for value in metadatas],
    }


def _explained(error: psycopg.Error, conversation_id: UUID, expected: ExpectedVersion) -> EventStoreError:
    if error.sqlstate == "ES001":
        return WrongExpectedVersion(conversation_id, expected, _detail(error)["actual"])
    if error.sqlstate == "ES008":
        return ConversationIsDeleted(conversation_id)
    if error.sqlstate == "ES007":
        return Forbidden(conversation_id)
    if error.sqlstate == "ES002":
        detail = _detail(error)
        return EventIdConflict(conversation_id, detail["event_id"], detail["differences"])
    return translate(error)


def _detail(error: psycopg.Error) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(error.diag.message_detail or "{}")
    return detail
