"""Connections: opened with the schema and the role that their purpose needs, and checked once."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from eventstore.caller import Caller
from eventstore.database.forking import disconnect_in_child
from eventstore.database.liveness import SILENCE_SECONDS
from eventstore.database.queries import query
from eventstore.database.refusal import ACCEPTED, STARTING, refusal
from eventstore.database.settings import Settings
from eventstore.database.translate import translate
from eventstore.database.waiting import WaitingConnection
from eventstore.errors import EventStoreError, LoginRefused, ServerStarting, ServerUnreachable, UnsuitableServer
from eventstore.urls import show_url

Connection = WaitingConnection
_log = logging.getLogger(__name__)

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
LOGIN_IS_EXEMPT = query("eventstore.database", "login_is_exempt")


TCP_TIMEOUTS: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
"""When the kernel ends a connection whose server has vanished: an idle one after some twenty seconds instead of two
hours, one with data on its way after five instead of a quarter of an hour. A server that acknowledges and does not
answer is noticed by ``liveness``."""


async def connect(url: str, settings: Settings, role: str | None) -> Connection:
    """Open a connection in autocommit mode, as ``role`` if the login may become it; None stays the login.

    Raises:
        ServerUnreachable, UnsuitableServer: see :func:`connect_as`.
    """
    connection, _ = await connect_as(url, settings, role)
    return connection


async def connect_as(url: str, settings: Settings, role: str | None) -> tuple[Connection, str]:
    """Open a connection as :func:`connect` does; return it and the role that it has taken.

    Behind a pooler, later statements may meet another role. A server that is starting is waited for, for as long as the
    settings allow.

    Raises:
        ServerUnreachable: nobody answers, or the login is refused.
        UnsuitableServer: the server is too old, its database is not in UTF-8, or a setting makes it unsuitable.
    """
    give_up_at = monotonic() + settings.connect_timeout
    while True:
        try:
            connection = await WaitingConnection.connect(url, autocommit=True, **connect_options(settings))
            try:
                # A caller's own transactions, which run under the writer's role, keep the limits of the login.
                taken = await configure(connection, settings, role, None if role == WRITER else 0)
            except BaseException:
                await connection.close()
                raise
            return connection, taken
        except psycopg.Error as error:
            refused = await asyncio.to_thread(unreachable, url, error)
            if not isinstance(refused, ServerStarting) or monotonic() >= give_up_at:
                raise refused from error
        await asyncio.sleep(_STARTING_SECONDS)


def unreachable(url: str, error: psycopg.Error) -> EventStoreError:
    """Return the error for a connection that could not be made. May connect once more, to learn why."""
    if error.sqlstate is not None:
        return translate(error)
    # libpq adds hints in lines of their own, which begin with a tab.
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    reason = lines[-1].strip() if lines else type(error).__name__
    if isinstance(error, psycopg.ProgrammingError):  # libpq does not understand the URL
        return LoginRefused(f"no connection to {show_url(url)}: {reason}: correct DATABASE_URL")
    state = "" if isinstance(error, psycopg.errors.ConnectionTimeout) else refusal(url)
    kind, advice = _REFUSED.get(state) or _REFUSED.get(state[:2]) or (ServerUnreachable, f"SQLSTATE {state}")
    return kind(f"no connection to {show_url(url)}: {reason}: {advice}")


_REFUSED: dict[str, tuple[type[ServerUnreachable], str]] = {
    "": (ServerUnreachable, "start the server, or correct DATABASE_URL or POSTGRES_HOST, POSTGRES_PORT"),
    "28": (LoginRefused, "correct the user or password in DATABASE_URL or POSTGRES_USER, POSTGRES_PASSWORD"),
    "3D000": (LoginRefused, "create the database, or correct its name in DATABASE_URL or POSTGRES_DB"),
    "42501": (LoginRefused, "grant the login CONNECT on the database"),
    "53300": (
        ServerUnreachable,
        "raise max_connections or the login's CONNECTION LIMIT, or lower EVENTSTORE_POOL_SIZE",
    ),
    "08P01": (ServerUnreachable, "a pooler refuses the connection: see its log"),
    STARTING: (ServerStarting, "the server is starting or stopping; repeat the call in a moment"),
    ACCEPTED: (ServerStarting, "it accepts connections now; repeat the call"),
}
"""What a refused connection means and what to do about it, by SQLSTATE or its class."""
_STARTING_SECONDS = 0.2


def connect_options(settings: Settings) -> dict[str, Any]:
    """Return what every connection is opened with."""
    hosts = str(conninfo_to_dict(settings.server_url() or "").get("host") or "").count(",") + 1
    return {
        # For all hosts together: libpq takes the number for each of them.
        "connect_timeout": max(_SHORTEST_CONNECT_SECONDS, settings.connect_timeout // hosts),
        # A name that the URL gives goes first.
        "fallback_application_name": "eventstore",
        "client_encoding": "UTF8",
        **TCP_TIMEOUTS,
    }


_SHORTEST_CONNECT_SECONDS = 2  # psycopg's


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


async def check_login(connection: Connection, settings: Settings) -> None:
    """Refuse a login for which row-level security does not hold, or warn if the settings allow it.

    Raises:
        UnsuitableServer: the login is a superuser or has BYPASSRLS.
    """
    refuse_exempt(connection.info.user, await (await connection.execute(LOGIN_IS_EXEMPT)).fetchone(), settings)


def refuse_exempt(login: str, row: Any, settings: Settings) -> None:
    """Refuse, or warn, as :func:`check_login` does; ``row`` is what the query ``LOGIN_IS_EXEMPT`` gave."""
    if row != (True,):
        return
    problem = f"the login {login} is a superuser or has BYPASSRLS: row-level security does not hold for it"
    if not settings.allow_superuser:
        raise UnsuitableServer(
            f"{problem}: connect as a login that has only the roles it needs (docs/concepts/roles.md), "
            "or allow it: --allow-superuser, EVENTSTORE_ALLOW_SUPERUSER=true"
        )
    _log.warning("warning: %s; connect as another login (docs/concepts/roles.md)", problem)


async def configure(connection: Connection, settings: Settings, role: str | None, milliseconds: int | None) -> str:
    """Set all that the session relies on, and refuse servers that do not carry the store.

    Args:
        milliseconds: the longest that a statement may take if the login's own limit is not lower; 0 is without end.
            None keeps all limits of the login.

    Returns:
        The role that was taken; ``none`` if that is the login.
    """
    disconnect_in_child(connection)
    refuse_unsuitable(connection.info)
    parameters = _of_role(connection, settings, role) | {"milliseconds": milliseconds}
    row = await (await connection.execute(_CONFIGURE, parameters)).fetchone()
    assert row is not None
    *_, replication_role, pid, taken = row
    if replication_role == "replica":
        raise UnsuitableServer(
            f"session_replication_role is replica for the login {connection.info.user}, so triggers do not fire: "
            f"ALTER ROLE {connection.info.user} RESET session_replication_role, and likewise for the database"
        )
    connection.liveness.is_backend_known = pid == connection.pgconn.backend_pid
    if milliseconds:
        connection.liveness.answer_seconds = milliseconds / 1000 + SILENCE_SECONDS
    return taken or LOGIN


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
