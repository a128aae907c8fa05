"""A check, when a store opens, that a pooler before the server is usable.

A pooler is recognised by the process id that it gives its clients, which is not that of the server's process.

The store uses prepared statements (:mod:`eventstore.database.connection`), which a pooler in transaction mode must
support: it lends each transaction any free session, and has to prepare there what its client has prepared before. A
pooler that does not do so causes errors now and then, for as long as it is used. The check: two clients prepare
different statements under one name, and execute them in an order without a period. A pooler that passes everything on
fails at once if both clients share one session, and otherwise as soon as a client meets a session where the other one
has prepared its statement, or neither has.

Session settings do not follow the client either, except for those that PostgreSQL reports to clients. So the defaults
of the login must be usable for the store.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

import psycopg
from psycopg import capabilities
from psycopg.pq.abc import PGresult

from eventstore.database.connection import Connection, Message
from eventstore.database.queries import query
from eventstore.errors import UnsuitableServer

_SESSION_DEFAULTS = query("eventstore.database", "session_defaults")
_ORDER = (0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0)
_DUPLICATE, _MISSING = "42P05", "26000"


async def check_pooler(first: Connection, second: Connection, schema: str) -> None:
    """Refuse a pooler that is not usable.

    Args:
        first, second: idle connections through it.
        schema: the schema of the store.

    Raises:
        UnsuitableServer: it does not keep prepared statements, or its sessions have unsuitable defaults; the text says
            what to set.
    """
    await _check_statements((first, second))
    row = await (await first.execute(_SESSION_DEFAULTS, {"schema": schema})).fetchone()
    if row is not None:
        name, value = row
        raise UnsuitableServer(
            f"the sessions of the pooler at {_address(first)} begin with another {name} than the store needs: "
            f"ALTER ROLE {first.info.user} SET {name} = '{value}', and RECONNECT the pooler"
        )


async def _check_statements(clients: tuple[Connection, Connection]) -> None:
    name = f"eventstore_trial_{secrets.token_hex(8)}".encode()
    for number, client in enumerate(clients):
        await _send(client, partial(client.pgconn.send_prepare, name, b"SELECT %d" % number))
    for number in _ORDER:
        client = clients[number]
        result = await _send(client, partial(client.pgconn.send_query_prepared, name, None))
        if result.get_value(0, 0) != b"%d" % number:
            raise _unsuitable(client)
    if capabilities.has_send_close_prepared():
        for client in clients:
            await _send(client, partial(client.pgconn.send_close_prepared, name))


async def _send(client: Connection, send: Callable[[], None]) -> PGresult:
    try:
        return await client.run_pipeline([Message(send)])
    except psycopg.Error as error:
        if error.sqlstate in (_DUPLICATE, _MISSING):
            raise _unsuitable(client) from error
        raise


def _unsuitable(client: Connection) -> UnsuitableServer:
    return UnsuitableServer(
        f"the pooler at {_address(client)} does not keep prepared statements: set max_prepared_statements = 200 "
        "(PgBouncer 1.21 or later) or pool_mode = session there, or let DATABASE_URL name the server itself"
    )


def _address(client: Connection) -> str:
    return f"{client.info.host}:{client.info.port}"
