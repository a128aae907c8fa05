"""A conversation as it was: its events up to then, folded by the projections' own texts.

The texts read the relation ``batch`` and write unqualified names of tables. In a transaction of its own, which is
rolled back, these are temporary tables: empty ones like the read tables, and a batch that holds the conversation's
events up to then. So what is shown is what the projections would have made, whatever they are, and nobody else sees
anything of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql

from eventstore import Caller, EventStore
from eventstore.database.connection import PROJECTOR, Connection, set_role
from eventstore.database.queries import query, query_without
from eventstore.errors import InputError, NotFound, translated
from projections.conversation_snapshot import ConversationSnapshot
from projections.projection import named

_PROJECTIONS = named(["conversations", "messages", "tasks"])
_LIMITS = frozenset(("version", "position", "time"))
_VERSIONS = query("projections", "as_of_versions")
_BATCH = query("projections", "as_of_batch")


@asynccontextmanager
async def snapshot_as_of(
    store: EventStore,
    caller: Caller,
    candidates: list[UUID],
    *,
    version: int | None = None,
    position: int | None = None,
    time: datetime | None = None,
) -> AsyncIterator[ConversationSnapshot | None]:
    """The first of the candidates that exists, as it was, until the end of the block; None where none exists.

    Raises:
        InputError: not exactly one of the three limits is given, or it is none.
        NotFound: the conversation had not begun then, or has not come to that version.
    """
    limit = _checked(version, position, time)
    tenant = caller.tenant
    # Whether the caller sees it is for the server to say; the projector, who folds it then, sees all.
    versions: dict[UUID, int] = dict(await store.log(caller).fetch(_VERSIONS, {"tenant": tenant, "ids": candidates}))
    found = next((candidate for candidate in candidates if candidate in versions), None)
    if found is None:
        yield None
        return
    if version is not None and version > versions[found]:
        raise NotFound(f"conversation {found} has come to version {versions[found]} only, not to {version}")
    async with await store.connect(PROJECTOR) as connection:
        with translated():
            async with connection.transaction(force_rollback=True):
                await set_role(connection, store.settings, PROJECTOR)  # a pooler may lend it another session
                await _make_tables(connection, store.settings.db_schema)
                if not await _fill_batch(connection, {"tenant": tenant, "conversation_id": found} | limit):
                    [(words, value)] = limit.items()
                    raise NotFound(f"conversation {found} had not begun at {words} {value}")
                for projection in _PROJECTIONS:
                    await projection.fold(connection)
                snapshot = await ConversationSnapshot.open(connection, tenant, found)
                assert snapshot is not None
                yield snapshot


async def _make_tables(connection: Connection, schema: str) -> None:
    await connection.execute(_BATCH)
    for table in (table for projection in _PROJECTIONS for table in projection.tables):
        like = sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING GENERATED)")
        await connection.execute(like.format(sql.Identifier(table), sql.Identifier(schema, table)))


async def _fill_batch(connection: Connection, given: dict[str, Any]) -> int:
    text = query_without("projections", "as_of_events", _LIMITS.difference(given))
    return (await connection.execute(text.encode(), given)).rowcount


def _checked(version: int | None, position: int | None, time: datetime | None) -> dict[str, Any]:
    limits: dict[str, Any] = {"version": version, "position": position, "time": time}
    given = {name: value for name, value in limits.items() if value is not None}
    if len(given) != 1:
        raise InputError("as of when? give exactly one of version, position and time")
    for name in given.keys() - {"time"}:
        if not isinstance(given[name], int) or not 0 <= given[name] < (2**31 if name == "version" else 2**63):
            raise InputError(f"{name}: {given[name]!r} is none; give a number from 1")
    if time is not None and (not isinstance(time, datetime) or time.tzinfo is None):
        raise InputError(f"time: {time!r} is no datetime with a time zone")
    return given
