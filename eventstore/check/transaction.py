"""A transaction of the writer's own, in which it calls the function ``append_events``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql
from psycopg.errors import FeatureNotSupported
from psycopg.types.json import Jsonb

from eventstore.check.adapter import Place, Refused, Write
from eventstore.check.outcomes import told_apart
from eventstore.database.connection import Connection
from eventstore.database.queries import query

EVENT_TYPE = "check.noted"

_APPEND = query("eventstore.check", "append")
_EXPECTED = {"NO_STREAM": 0, "EXISTS": -1, "ANY": -2}


class OwnTransaction:
    """On a connection that begins a transaction with the first statement. See :class:`adapter.Transaction`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, write: Write) -> Sequence[Place]:
        """Calls ``append_events``."""
        parameters = {
            "tenant": write.tenant,
            "conversation": write.conversation,
            "expected": _EXPECTED.get(str(write.expected), write.expected),
            "count": len(write.events),
            "ids": [event.id for event in write.events],
            "event_type": EVENT_TYPE,
            "contents": [Jsonb(event.content) for event in write.events],
        }
        with told_apart():
            return [Place(*row) for row in await (await self._connection.execute(_APPEND, parameters)).fetchall()]

    async def savepoint(self) -> None:
        """SAVEPOINT."""
        await self._run("SAVEPOINT here")

    async def roll_back_to_savepoint(self) -> None:
        """ROLLBACK TO SAVEPOINT."""
        await self._run("ROLLBACK TO SAVEPOINT here")

    async def commit(self) -> None:
        """COMMIT, which a transaction that has failed answers with ROLLBACK."""
        await self._run("COMMIT", answer="COMMIT")

    async def roll_back(self) -> None:
        """ROLLBACK."""
        await self._run("ROLLBACK")

    async def prepare(self, name: str) -> None:
        """PREPARE TRANSACTION."""
        await self._run(sql.SQL("PREPARE TRANSACTION {}").format(name), answer="PREPARE TRANSACTION")

    async def finish_prepared(self, name: str, *, commit: bool) -> None:
        """COMMIT PREPARED or ROLLBACK PREPARED, which stand outside any transaction."""
        with told_apart():
            await self._connection.set_autocommit(True)
        await self._run(sql.SQL("COMMIT PREPARED {}" if commit else "ROLLBACK PREPARED {}").format(name))

    async def _run(self, statement: LiteralString | sql.Composed, answer: str | None = None) -> None:
        with told_apart():
            try:
                cursor = await self._connection.execute(statement)
            except FeatureNotSupported as error:
                # PostgreSQL prepares no transaction that has notified, and an append notifies where somebody sleeps.
                raise Refused(str(error)) from error
        if answer is not None and cursor.statusmessage != answer:
            raise Refused(f"the server answered {cursor.statusmessage}")
