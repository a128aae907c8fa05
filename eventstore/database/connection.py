"""Connections: opened with the schema and the role that their purpose needs, and checked once."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.rows import TupleRow

from eventstore.caller import Caller
from eventstore.database.forking import disconnect_in_child
from eventstore.database.queries import query
from eventstore.database.settings import Settings
from eventstore.database.translate import translate
from eventstore.errors import EventStoreError, ServerUnreachable, UnsuitableServer

Connection = psycopg.AsyncConnection[TupleRow]

APP = "eventstore_app"
WRITER = "eventstore_writer"
READER = "eventstore_reader"
AUDITOR = "eventstore_auditor"
PROJECTOR = "eventstore_projector"
LOGIN = "none"
"""In the place of a role: none is taken."""
OLDEST_SERVER = 15
BOOKKEEPING = "eventstore_migrations"
"""dbmate's table, in the store's own schema."""

_CONFIGURE = query("eventstore.database", "configure")
_CALLER = query("eventstore.database", "caller")
_TAKE_ROLE = query("eventstore.database", "take_role")


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    options = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "password"]
    return urlunsplit(parts._replace(netloc=login.partition(":")[0] + at + host, query=urlencode(options)))


async def connect(url: str, settings: Settings, role: str | None) -> Connection:
    """Opens a connection in autocommit mode, as ``role`` where the login may become it; None stays the login.

    Raises:
        ServerUnreachable, UnsuitableServer: see :func:`connect_as`.
    """
    connection, _ = await connect_as(url, settings, role)
    return connection


async def connect_as(url: str, settings: Settings, role: str | None) -> tuple[Connection, str]:
    """As :func:`connect`, and the role that was taken: behind a pooler, later statements may meet another.

    Raises:
        ServerUnreachable: nobody answers, or the login is refused.
        UnsuitableServer: the server is too old or its database is not in UTF-8.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **connect_options(settings))
        try:
            taken = await configure(connection, settings, role)
        except BaseException:
            await connection.close()
            raise
    except psycopg.Error as error:
        raise unreachable(url, error) from error
    return connection, taken


def unreachable(url: str, error: psycopg.Error) -> EventStoreError:
    """The error for a connection that could not be made."""
    known = translate(error)
    if error.sqlstate is not None:
        return known
    # libpq adds hints in lines of their own, which begin with a tab.
    said = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    reason = said[-1].strip() if said else type(error).__name__
    return ServerUnreachable(f"no connection to {without_password(url)}: {reason}: {_advice(reason)}")


def _advice(reason: str) -> str:
    """What to do; libpq gives no code for a refused connection, only a text."""
    if "password" in reason or "authentication" in reason or "pg_hba" in reason:
        return "correct the user or password in DATABASE_URL or POSTGRES_USER, POSTGRES_PASSWORD"
    if "does not exist" in reason:
        return "create it, or correct its name in DATABASE_URL or POSTGRES_DB, POSTGRES_USER"
    if "invalid" in reason:
        return "correct DATABASE_URL"
    return "start the server, or correct DATABASE_URL or POSTGRES_HOST, POSTGRES_PORT"


def connect_options(settings: Settings) -> dict[str, Any]:
    """What every connection is opened with."""
    return {
        "connect_timeout": settings.connect_timeout,
        # A name that the URL gives goes first.
        "fallback_application_name": "eventstore",
        "client_encoding": "UTF8",
        # A half-open connection is noticed after about twenty seconds instead of two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
    }


def refuse_unsuitable(info: psycopg.ConnectionInfo) -> None:
    """Refuses servers that do not carry the store.

    Raises:
        UnsuitableServer: it is too old, or its database is not in UTF-8.
    """
    if info.server_version < OLDEST_SERVER * 10000:
        raise UnsuitableServer(
            f"PostgreSQL {info.server_version // 10000} is too old: the store needs {OLDEST_SERVER} or later; "
            "use another server"
        )
    if (encoding := info.parameter_status("server_encoding")) != "UTF8":
        raise UnsuitableServer(
            f"the database {info.dbname} is in {encoding}, the store needs UTF8: "
            "create it with ENCODING 'UTF8' TEMPLATE template0"
        )


async def configure(connection: Connection, settings: Settings, role: str | None) -> str:
    """Sets schema, role and time zone for the connection's life, and refuses servers that do not carry the store.

    Returns:
        The role that was taken; ``none`` where that is the login.
    """
    disconnect_in_child(connection)
    refuse_unsuitable(connection.info)
    row = await (await connection.execute(_CONFIGURE, _of_role(connection, settings, role))).fetchone()
    return (row and row[-1]) or LOGIN


async def take_role(connection: Connection, settings: Settings, role: str) -> None:
    """Takes another role, with its search path, until the transaction ends, where the login may."""
    await connection.execute(_TAKE_ROLE, _of_role(connection, settings, role))


def _of_role(connection: Connection, settings: Settings, role: str | None) -> dict[str, Any]:
    return {
        "role": role,
        # The projector's temporary objects must be found before any table; everybody else finds such last.
        "path": f"pg_temp, {settings.db_schema}" if role == PROJECTOR else f"{settings.db_schema}, pg_temp",
        "right": "SET" if connection.info.server_version >= 160000 else "MEMBER",
        "table": f"{settings.db_schema}.{BOOKKEEPING}",
    }


async def say_caller(connection: Connection, caller: Caller | None, role: str) -> None:
    """Says for whom, and as what role, the connection asks until its transaction ends; None is nobody."""
    who = {"tenant": caller.tenant if caller else "", "user": (caller and caller.user) or "", "about": ""}
    said = who | {"role": role}
    await connection.execute(_CALLER, said)
