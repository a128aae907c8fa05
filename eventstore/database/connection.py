"""Connections: opened with the role and schema of their purpose, with deadlines and safe statement names.

A pooler may lend one server session to several clients. If it does not keep prepared statements apart, a client that
asks for the statement ``x`` gets what another client has prepared there under that name. With names such as ``s_1``
that is another query, whose rows look like an answer. So a name here contains a hash of the statement's text and of the
types of its parameters: the worst that can happen is an error. A store refuses such a pooler when it opens
(:mod:`eventstore.database.pooler_check`).

libpq tries them in their order for each connection. After a failover the first one may be a machine that does not
answer, and every new connection would wait for it in vain.

A result comes in pieces of eight kilobytes. psycopg wakes its coroutine for each of them, and tells the event loop each
time to watch the socket and to stop watching it; that takes as long as all the rest of reading a page of events. Here
the event loop calls back instead, until the result is whole. Everything else is left to psycopg, cancellation too.

No wait lasts longer than the server takes: see :mod:`eventstore.database.liveness`. How statements are named, see
:mod:`eventstore.database.connection`.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Generator, Sequence
from hashlib import sha256
from time import monotonic
from typing import Any, Self, TypeVar

import psycopg
from psycopg._preparing import Prepare, PrepareManager
from psycopg._queries import PostgresQuery
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

from eventstore.database.forking import disconnect_in_child
from eventstore.database.liveness import SILENCE_SECONDS, Liveness
from eventstore.database.queries import query
from eventstore.database.refusal import ACCEPTED, STARTING, refusal
from eventstore.database.settings import Settings
from eventstore.errors import (
    EventStoreError,
    LoginRefused,
    ServerStarting,
    ServerUnreachable,
    UnsuitableServer,
    translate,
)
from eventstore.scope import Caller
from eventstore.urls import show_url

# Names of prepared statements that can be mistaken for no other statement's


def statement_name(text: bytes, types: Sequence[int], label: bytes = b"eventstore") -> bytes:
    """Return the name of a statement: a label for people, and a hash."""
    digest = sha256(struct.pack(f">{len(types)}I", *types) + text)
    return label + b"_" + digest.hexdigest()[:24].encode()


class HashedNames(PrepareManager):
    """The statements that psycopg prepares on a connection, under such names.

    psycopg forgets them by ``DEALLOCATE ALL``, which would also take away those that are not its own; here each is
    closed by its name.
    """

    def get(self, query: PostgresQuery, prepare: bool | None = None) -> tuple[Prepare, bytes]:
        """Return whether to prepare a query, and its name."""
        decision, name = super().get(query, prepare)
        if decision is Prepare.SHOULD:
            name = statement_name(query.query, query.types, b"eventstore_cursor")
        return decision, name

    def clear(self) -> bool:
        """Forget all statements. Return whether there are any to close on the server."""
        names = list(self._names.values())
        self._counts.clear()
        self._names.clear()
        self._to_flush.extend(names)
        return bool(names)


# Several hosts in one URL: the one that was reached last is tried first

_LISTS = ("host", "hostaddr", "port")
_reached: dict[str, int] = {}


def reordered(conninfo: str) -> str:
    """Return the connection string with its hosts rotated so that the one reached last comes first."""
    first = _reached.get(conninfo, 0)
    if not first:
        return conninfo
    lists = _lists(conninfo)
    return make_conninfo(conninfo, **{name: ",".join(each[first:] + each[:first]) for name, each in lists.items()})


def remember(conninfo: str, reached: PGconn) -> None:
    """Note which host a connection has reached."""
    lists = _lists(conninfo)
    number = max(map(len, lists.values()), default=1)
    if number < 2:
        return
    hosts = lists.get("host") or lists["hostaddr"]
    ports = lists.get("port") or []
    address = reached.host.decode(), reached.port.decode()
    for index in range(number):
        if address == (hosts[index], ports[index] if index < len(ports) else address[1]):
            _reached[conninfo] = index
            return


def _lists(conninfo: str) -> dict[str, list[str]]:
    given = conninfo_to_dict(conninfo)
    # A single value, such as a port for all, is not a list.
    return {name: str(given[name]).split(",") for name in _LISTS if "," in str(given.get(name) or "")}


# The base of all asynchronous connections: cheap waits, with a deadline, and safe names of prepared statements

_Result = TypeVar("_Result")

_LOOK_SECONDS = 1.0
"""How often a connection is looked at of which nothing is heard: somebody else may have closed it."""


class DeadlineConnection(psycopg.AsyncConnection[TupleRow]):
    """A connection whose waits end when the server has gone.

    Attributes:
        liveness: the watch over its server.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepared = HashedNames()
        self.liveness = Liveness(self.pgconn)

    @classmethod
    async def connect(cls, conninfo: str = "", *arguments: Any, **options: Any) -> Self:
        """Connect as psycopg does, to the host first that was reached last."""
        connection = await super().connect(reordered(conninfo), *arguments, **options)
        remember(conninfo, connection.pgconn)
        return connection

    async def wait(self, gen: PQGen[_Result], *arguments: Any, **options: Any) -> _Result:
        """Carry out an operation on the connection. Called by psycopg."""
        if arguments or options:  # with a time limit of its own
            return await super().wait(gen, *arguments, **options)
        try:
            state = next(gen)
        except StopIteration as end:
            result: _Result = end.value
            return result
        waiting = _Reading(gen, state, self.liveness)
        self.liveness.begin()
        try:
            try:
                if state == Wait.R:
                    await waiting.run(self.pgconn)
            except asyncio.CancelledError:
                await _cancel(super().wait(waiting.rest()))
                raise
            return waiting.result if waiting.is_over else await super().wait(waiting.rest())
        except psycopg.OperationalError as error:
            if self.liveness.reason and error.sqlstate is None:
                raise psycopg.OperationalError(self.liveness.reason) from error
            raise
        finally:
            self.liveness.end()


class _Reading:
    """An operation as far as it only reads."""

    def __init__(self, gen: PQGen[Any], state: Wait, liveness: Liveness) -> None:
        self._gen, self._state, self._liveness = gen, state, liveness
        self.is_over = False
        self.result: Any = None

    async def run(self, pgconn: PGconn) -> None:
        """Goes on until the operation is over or has something to write."""
        loop = asyncio.get_running_loop()
        stopped = loop.create_future()
        socket = pgconn.socket
        timer: asyncio.TimerHandle

        def step() -> None:
            if stopped.done():
                return
            self._liveness.heard()
            try:
                self._state = self._gen.send(Ready.R)
            except StopIteration as end:
                self.is_over, self.result = True, end.value
                stopped.set_result(None)
            except Exception as error:
                stopped.set_exception(error)
            else:
                if self._state != Wait.R:
                    stopped.set_result(None)

        def look() -> None:
            nonlocal timer
            timer = loop.call_later(_LOOK_SECONDS, look)
            if pgconn.status != ConnStatus.OK and not stopped.done():
                stopped.set_exception(psycopg.OperationalError("the connection was closed while it was waited for"))

        timer = loop.call_later(_LOOK_SECONDS, look)
        loop.add_reader(socket, step)
        try:
            await stopped
        finally:
            timer.cancel()
            loop.remove_reader(socket)

    def rest(self) -> Generator[Wait, Ready | int, Any]:
        """What remains of the operation."""
        while not self.is_over:
            ready = yield self._state
            if ready:
                self._liveness.heard()
            try:
                self._state = self._gen.send(ready)
            except StopIteration as end:
                self.is_over, self.result = True, end.value
        return self.result


async def _cancel(waiting: Any) -> None:
    """Lets psycopg wait, and cancels that: it knows how to end a query and leaves the connection usable or closed."""
    task = asyncio.ensure_future(waiting)
    asyncio.get_running_loop().call_soon(task.cancel)  # once it waits
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue  # the caller raises it
    if not task.cancelled():
        task.exception()


# Connections: opened with the schema and the role that their purpose needs, and checked once

Connection = DeadlineConnection
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
            connection = await DeadlineConnection.connect(url, autocommit=True, **connect_options(settings))
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


async def set_role(connection: Connection, settings: Settings, role: str) -> None:
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


async def set_caller(connection: Connection, caller: Caller | None, role: str) -> None:
    """Says for whom, and as what role, the connection asks until its transaction ends; None is nobody."""
    who = {"tenant": caller.tenant if caller else "", "user": (caller and caller.user) or "", "about": ""}
    said = who | {"role": role}
    await connection.execute(_CALLER, said)
