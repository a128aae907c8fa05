"""A trial at opening: whether a pooler before the server can be used.

A pooler is known by the process id that it gives its clients, which is not that of the server's process.

The store uses prepared statements (:mod:`eventstore.database.connection`), of which a pooler in transaction mode must
know: it lends each transaction whatever session is free, and has to prepare there what its client has prepared before.
One that does not do so answers by errors, now and then, for as long as it is used. The trial: two clients prepare
different statements under one name, and execute them in an order without a period. A pooler that passes everything on
fails at once if both are lent the same session, and otherwise as soon as one of them is lent a session where the other
has prepared its statement, or nobody has.

What a session is set to does not follow the client either, except for what PostgreSQL reports to clients. So the
defaults of the login must be such that the store can work with them.
"""

from __future__ import annotations

import secrets
from functools import partial

from psycopg import capabilities, generators
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import UnsuitableServer

_SESSION_DEFAULTS = query("eventstore.database", "session_defaults")
_TURNS = (0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0)
_DUPLICATE, _MISSING = "42P05", "26000"


async def check_pooler(one: Connection, other: Connection, schema: str) -> None:
    """Refuse a pooler that cannot be used.

    Args:
        one, other: connections through it, on which nothing is under way.
        schema: of the store.

    Raises:
        UnsuitableServer: it does not keep prepared statements, or its sessions have defaults that the store cannot work
            with; the text says what to set.
    """
    await _check_statements(one, other)
    row = await (await one.execute(_SESSION_DEFAULTS, {"schema": schema})).fetchone()
    if row is not None:
        name, value = row
        raise UnsuitableServer(
            f"the sessions of the pooler at {_place(one)} begin with another {name} than the store needs: "
            f"ALTER ROLE {one.info.user} SET {name} = '{value}', and RECONNECT the pooler"
        )


async def _check_statements(one: Connection, other: Connection) -> None:
    name = f"eventstore_trial_{secrets.token_hex(8)}".encode()
    clients = (one, other)
    for number, client in enumerate(clients):
        await _refused_or(client, partial(client.pgconn.send_prepare, name, b"SELECT %d" % number))
    for number in _TURNS:
        client = clients[number]
        result = await _refused_or(client, partial(client.pgconn.send_query_prepared, name, None))
        if result.get_value(0, 0) != b"%d" % number:
            raise _unsuitable(client)
    if capabilities.has_send_close_prepared():
        for client in clients:
            await _refused_or(client, partial(client.pgconn.send_close_prepared, name))


async def _refused_or(client: Connection, send: partial[None]) -> PGresult:
    async with client.lock:
        send()
        results = await client.wait(generators.execute(client.pgconn))
    result: PGresult = results[-1]
    if result.status == ExecStatus.FATAL_ERROR:
        error = error_from_result(result, client.info.encoding)
        raise _unsuitable(client) if error.sqlstate in (_DUPLICATE, _MISSING) else error
    return result


def _unsuitable(client: Connection) -> UnsuitableServer:
    return UnsuitableServer(
        f"the pooler at {_place(client)} does not keep prepared statements: set max_prepared_statements = 200 "
        "(PgBouncer 1.21 or later) or pool_mode = session there, or let DATABASE_URL name the server itself"
    )


def _place(client: Connection) -> str:
    return f"{client.info.host}:{client.info.port}"
