"""Connections: opened with the role and schema of their purpose, with deadlines, and with fast waits.

**Waits.** A result arrives in pieces of eight kilobytes. For each piece psycopg wakes its coroutine and has the event
loop watch the socket anew; that costs as much as everything else in reading a page of events. :class:`Connection` has
the event loop call back until the result is complete. Everything else, cancellation included, is left to psycopg. No
wait outlasts a server that has vanished: see :mod:`eventstore.database.liveness`.

**Prepared statements.** A pooler may lend one server session to several clients. If it does not keep their prepared
statements apart, a client that executes the statement ``x`` runs whatever another client has prepared there under that
name. With names such as ``s_1`` that is another query, whose rows look like an answer. So every name contains a hash of
the statement's text and parameter types (:func:`statement_name`): the worst that can happen is an error. A store
refuses such a pooler when it opens (:mod:`eventstore.database.pooler_check`).

**Several hosts.** libpq tries the hosts of a URL in order for each connection. After a failover the first one may be a
machine that does not answer, and every new connection would wait for it. So the host that was reached last is tried
first.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from hashlib import sha256
from time import monotonic
from typing import Any, NamedTuple, Self, TypeVar

import psycopg
from psycopg._preparing import Prepare, PrepareManager
from psycopg._queries import PostgresQuery
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

from eventstore.database.connection_refusal import ACCEPTED, refusal_sqlstate
from eventstore.database.fork_safety import abandon_in_child
from eventstore.database.liveness import SILENCE_SECONDS, Liveness
from eventstore.database.queries import name_of, query
from eventstore.errors import (
    EventStoreError,
    LoginRefused,
    ServerStarting,
    ServerUnreachable,
    UnsuitableServer,
    by_sqlstate,
    translate,
)
from eventstore.settings import Settings
from eventstore.urls import show_url

APP = "eventstore_app"
WRITER = "eventstore_writer"
READER = "eventstore_reader"
AUDITOR = "eventstore_auditor"
PROJECTOR = "eventstore_projector"
ERASER = "eventstore_eraser"
LOGIN = "none"
"""PostgreSQL's name for the role of a session that has not set one."""
OLDEST_SERVER = 15
BOOKKEEPING = "eventstore_migrations"
"""dbmate's table, in the store's own schema."""

TCP_TIMEOUTS: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
"""When the kernel closes a connection whose server has vanished: an idle one after some twenty seconds instead of two
hours, one with data in flight after five instead of a quarter of an hour. Parameters of the URL override them.
``liveness`` notices a server that acknowledges and does not answer."""
RETRY_SECONDS = 0.2
"""The pause between attempts to connect while a caller waits for the connection."""
RECONNECT_SECONDS = 1.0
"""The longest pause between attempts to connect, in everything that waits for a server that is away: listening
connections, pools, subscriptions, workers. It does not grow with the time that the server is away, so that all are back
within seconds."""

_CONFIGURE = query("eventstore.database", "configure")
_SET_ROLE = query("eventstore.database", "set_role")
LOGIN_IS_EXEMPT = query("eventstore.database", "login_is_exempt")

_CHECK_SECONDS = 1.0
"""Seconds between checks of a silent connection: other code may have closed it."""
_MIN_CONNECT_SECONDS = 2  # psycopg's

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Message(NamedTuple):
    """A message of the extended query protocol, and a callback for its success, whatever the others' outcomes."""

    send: Callable[[], None]
    on_success: Callable[[], None] = lambda: None


class Connection(psycopg.AsyncConnection[TupleRow]):
    """A connection with fast waits that end when the server has vanished.

    Attributes:
        liveness: watches whether the server still answers.
        role: the role that was set when it was opened; behind a pooler, later statements may run under another one.
        slow_seconds: a statement that takes longer is logged, by its name.
    """

    slow_seconds = math.inf

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepared = HashedNames()  # psycopg's own attribute
        self.liveness = Liveness(self.pgconn)
        self.role = LOGIN
        abandon_in_child(self)

    def abandon(self) -> None:
        """Disconnect in a forked child process, without a message to the server."""
        with suppress(psycopg.Error, OSError), open(os.devnull, "r+b") as null:  # unless it is closed already
            os.dup2(null.fileno(), self.pgconn.socket, inheritable=False)

    @classmethod
    async def connect(cls, conninfo: str = "", *arguments: Any, **options: Any) -> Self:
        """Connect as psycopg does; of several hosts, try the one that was reached last first."""
        connection = await super().connect(reordered(conninfo), *arguments, **options)
        remember(conninfo, connection.pgconn)
        return connection

    async def execute(self, query: Any, params: Any = None, **options: Any) -> psycopg.AsyncCursor[TupleRow]:
        """Execute a statement as psycopg does."""
        began = monotonic()
        try:
            return await super().execute(query, params, **options)
        finally:
            self.log_if_slow(query, monotonic() - began)

    def log_if_slow(self, statement: object, seconds: float) -> None:
        """Log the name of a statement, and how long it took, if that is too long."""
        if seconds > self.slow_seconds:
            name = name_of(statement)
            fields = {"event": "statement_slow", "statement": name, "milliseconds": round(seconds * 1000)}
            _log.info("the statement %s took %.1f s", name, seconds, extra=fields)

    async def run_pipeline(self, messages: Sequence[Message]) -> PGresult:
        """Send messages before one Sync, so in one round trip and one transaction; return the result of the last."""
        return await self.wait(_pipeline(self.pgconn, messages, self.info.encoding))

    async def wait(self, gen: PQGen[_Result], *arguments: Any, **options: Any) -> _Result:
        """Run an operation of psycopg to its end. Called by psycopg."""
        if arguments or options:  # with a timeout
            return await super().wait(gen, *arguments, **options)
        try:
            state = next(gen)
        except StopIteration as end:
            result: _Result = end.value
            return result
        operation = _Operation(gen, state, self.liveness)
        self.liveness.begin()
        try:
            try:
                if state == Wait.R:
                    await operation.read(self.pgconn)
            except asyncio.CancelledError:
                await _cancel(super().wait(operation.remainder()))
                raise
            return operation.result if operation.is_over else await super().wait(operation.remainder())
        except psycopg.OperationalError as error:
            if self.liveness.reason and error.sqlstate is None:
                raise psycopg.OperationalError(self.liveness.reason) from error
            raise
        finally:
            self.liveness.end()


class _Operation:
    """An operation of psycopg: a generator that yields what to wait for on the socket."""

    def __init__(self, gen: PQGen[Any], state: Wait, liveness: Liveness) -> None:
        self._gen, self._state, self._liveness = gen, state, liveness
        self._stopped: asyncio.Future[None]
        self._timer: asyncio.TimerHandle
        self.is_over = False
        self.result: Any = None

    async def read(self, pgconn: PGconn) -> None:
        """Advance it by callbacks until it is over or has something to write."""
        loop = asyncio.get_running_loop()
        socket = pgconn.socket
        self._stopped = loop.create_future()
        self._timer = loop.call_later(_CHECK_SECONDS, self._check, pgconn)
        loop.add_reader(socket, self._on_readable)
        try:
            await self._stopped
        finally:
            self._timer.cancel()
            loop.remove_reader(socket)
            del self._stopped  # an error in it refers to this frame and to those of the callers, in a cycle

    def _on_readable(self) -> None:
        if self._stopped.done():
            return
        self._liveness.received()
        try:
            self._state = self._gen.send(Ready.R)
        except StopIteration as end:
            self.is_over, self.result = True, end.value
            self._stopped.set_result(None)
        except Exception as error:
            self._stopped.set_exception(error)
        else:
            if self._state != Wait.R:
                self._stopped.set_result(None)

    def _check(self, pgconn: PGconn) -> None:
        self._timer = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check, pgconn)
        if pgconn.status != ConnStatus.OK and not self._stopped.done():
            self._stopped.set_exception(psycopg.OperationalError("the connection was closed during a statement"))

    def remainder(self) -> Generator[Wait, Ready | int, Any]:
        """Return the rest of it as a generator for psycopg."""
        while not self.is_over:
            ready = yield self._state
            if ready:
                self._liveness.received()
            try:
                self._state = self._gen.send(ready)
            except StopIteration as end:
                self.is_over, self.result = True, end.value
        return self.result


async def _cancel(waiting: Any) -> None:
    """Have psycopg wait, and cancel that: it cancels the query and leaves the connection usable or closed."""
    task = asyncio.ensure_future(waiting)
    asyncio.get_running_loop().call_soon(task.cancel)  # once it waits
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue  # the caller raises it
    if not task.cancelled():
        task.exception()


def _pipeline(pgconn: PGconn, messages: Sequence[Message], encoding: str) -> PQGen[PGresult]:
    # Also runs to its end if the caller is cancelled, so that the callbacks tell what the server has done.
    results: list[PGresult] = []
    try:
        pgconn.enter_pipeline_mode()
        for message in messages:
            message.send()
        pgconn.pipeline_sync()
        while pgconn.flush():
            if (yield Wait.RW) & Ready.R:
                pgconn.consume_input()
        while True:
            while pgconn.is_busy():
                while not (yield Wait.R):
                    continue
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
                break
            if result is not None:
                results.append(result)
            elif pgconn.status != ConnStatus.OK:  # otherwise None ends the results of one message
                errors = [result for result in results if result.status == ExecStatus.FATAL_ERROR]
                if errors:
                    raise error_from_result(errors[0], encoding)
                raise psycopg.OperationalError("the server closed the connection unexpectedly")
        pgconn.exit_pipeline_mode()
    except BaseException:
        pgconn.finish()  # its protocol state is unknown
        raise
    for message, result in zip(messages, results, strict=True):
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding)
        message.on_success()
    return results[-1]


class HashedNames(PrepareManager):
    """The statements that psycopg's cursors prepare on a connection, under hashed names.

    psycopg has no public option for the names, and cursors without prepared statements take twice as long. psycopg also
    drops its statements by ``DEALLOCATE ALL``, which would drop others too; here each is closed by its name.
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


def statement_name(text: bytes, types: Sequence[int], label: bytes = b"eventstore") -> bytes:
    """Return the name of a prepared statement: a label, and a hash of its text and parameter types."""
    digest = sha256(struct.pack(f">{len(types)}I", *types) + text)
    return label + b"_" + digest.hexdigest()[:24].encode()


# Opening connections


async def connect(url: str, settings: Settings, role: str | None) -> Connection:
    """Open a connection in autocommit mode, as ``role`` if the login may become it; None stays the login.

    If the server is starting, this waits for it as long as the settings allow.

    Raises:
        ServerUnreachable: the server does not answer, or refuses the login.
        UnsuitableServer: the server is too old, its database is not in UTF-8, or a setting makes it unsuitable.
    """
    deadline = monotonic() + settings.connect_timeout
    while True:
        try:
            connection = await Connection.connect(url, autocommit=True, **connect_options(url, settings))
            try:
                # Transactions of a caller, which run under the writer's role, keep the limits of the login.
                await configure(connection, settings, role, None if role == WRITER else 0)
            except BaseException:
                await connection.close()
                raise
            return connection
        except psycopg.Error as error:
            reason = await asyncio.to_thread(unreachable, url, error)
            if not isinstance(reason, ServerStarting) or monotonic() >= deadline:
                raise reason from error
        await asyncio.sleep(RETRY_SECONDS)


def connect_options(url: str, settings: Settings) -> dict[str, Any]:
    """Return the options with which every connection to a URL is opened."""
    given = conninfo_to_dict(url)
    hosts = str(given.get("host") or "").count(",") + 1
    return {
        # For all hosts together: libpq applies the number to each of them.
        "connect_timeout": max(_MIN_CONNECT_SECONDS, settings.connect_timeout // hosts),
        "fallback_application_name": "eventstore",  # a name in the URL overrides it
        "client_encoding": "UTF8",
        **{name: value for name, value in TCP_TIMEOUTS.items() if name not in given},
    }


async def configure(connection: Connection, settings: Settings, role: str | None, milliseconds: int | None) -> None:
    """Set everything that the session relies on, and refuse servers that cannot carry the store.

    Args:
        milliseconds: the statement timeout, unless the login's own is lower; 0 is none. None keeps all limits of the
            login.
    """
    refuse_unsuitable(connection.info)
    parameters = _role_parameters(connection, settings, role) | {"milliseconds": milliseconds}
    row = await (await connection.execute(_CONFIGURE, parameters)).fetchone()
    assert row is not None
    *_, replication_role, pid, current_role = row
    if replication_role == "replica":
        raise UnsuitableServer(
            f"session_replication_role is replica for the login {connection.info.user}, so triggers do not fire: "
            f"ALTER ROLE {connection.info.user} RESET session_replication_role, and likewise for the database"
        )
    connection.liveness.is_backend_known = pid == connection.pgconn.backend_pid
    if milliseconds:
        connection.liveness.reply_seconds = milliseconds / 1000 + SILENCE_SECONDS
    connection.role = current_role or LOGIN
    connection.slow_seconds = settings.slow_statement_seconds


async def set_role(connection: Connection, settings: Settings, role: str) -> None:
    """Set a role, with its search path, until the transaction ends, if the login may."""
    await connection.execute(_SET_ROLE, _role_parameters(connection, settings, role))


def _role_parameters(connection: Connection, settings: Settings, role: str | None) -> dict[str, Any]:
    return {
        "role": role,
        # The projector's temporary objects must be found before any table, all others' last.
        "path": f"pg_temp, {settings.db_schema}" if role == PROJECTOR else f"{settings.db_schema}, pg_temp",
        "right": "SET" if connection.info.server_version >= 160000 else "MEMBER",
        "table": f"{settings.db_schema}.{BOOKKEEPING}",
    }


# Servers and logins that are refused


def refuse_unsuitable(info: psycopg.ConnectionInfo) -> None:
    """Refuse a server that cannot carry the store."""
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
    """Refuse a login to which row-level security does not apply, or warn if the settings allow it."""
    refuse_exempt(connection.info.user, await (await connection.execute(LOGIN_IS_EXEMPT)).fetchone(), settings)


def refuse_exempt(login: str, row: Any, settings: Settings) -> None:
    """Refuse or warn as :func:`check_login` does; ``row`` is the result of the query ``LOGIN_IS_EXEMPT``."""
    if row != (True,):
        return
    problem = f"the login {login} is a superuser or has BYPASSRLS: row-level security does not hold for it"
    if not settings.allow_superuser:
        raise UnsuitableServer(
            f"{problem}: connect as a login that has only the roles it needs (docs/concepts/roles.md), "
            "or allow it: --allow-superuser, EVENTSTORE_ALLOW_SUPERUSER=true"
        )
    advice = "connect as another login (docs/concepts/roles.md)"
    _log.warning("warning: %s; %s", problem, advice, extra={"event": "login_exempt", "login": login})


_REFUSED: dict[str, tuple[type[EventStoreError], str]] = {
    "": (ServerUnreachable, "start the server, or correct DATABASE_URL or POSTGRES_HOST, POSTGRES_PORT"),
    "42501": (LoginRefused, "grant the login CONNECT on the database"),
    "08P01": (ServerUnreachable, "a pooler refuses the connection: see its log"),
    ACCEPTED: (ServerStarting, "it accepts connections now; repeat the call"),
}
"""The error for a refused connection and its remedy, by SQLSTATE, if it is not that of a refused statement."""
_FAILED_HOST = re.compile(r"- host: '?(?P<host>.*?)'?, port: '?(?P<port>\d*)'?, hostaddr: .*?: (?P<reason>.*)")
"""One of several hosts in psycopg's error."""
_READ_ONLY = "session is read-only"
"""libpq's reason if ``target_session_attrs`` asks for a server that accepts writes, and none does."""


def unreachable(url: str, error: psycopg.Error) -> EventStoreError:
    """Return the error for a connection that could not be opened. May connect once more to learn the SQLSTATE."""
    if error.sqlstate is not None:
        return translate(error)
    # libpq adds hints in separate lines, which begin with a tab.
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    reason = lines[-1].strip() if lines else type(error).__name__
    if failed := [found for found in map(_FAILED_HOST.fullmatch, lines) if found]:
        reasons = [(host["host"], host["port"], host["reason"].rpartition(" failed: ")[2]) for host in failed]
        reason = "; ".join(f"{host}:{port}: {why}" for host, port, why in reasons)
    if _READ_ONLY in reason:
        advice = "promote a standby, or wait for its promotion: no host of the URL accepts writes"
        return ServerStarting(f"no connection to {show_url(url)}: {reason}: {advice}")
    if isinstance(error, psycopg.ProgrammingError):  # libpq cannot parse the URL
        return LoginRefused(f"no connection to {show_url(url)}: {reason}: correct DATABASE_URL")
    state = "" if isinstance(error, psycopg.errors.ConnectionTimeout) else refusal_sqlstate(url)
    kind, advice = _REFUSED.get(state) or by_sqlstate(state)
    if not issubclass(kind, ServerUnreachable):
        kind, advice = ServerUnreachable, f"SQLSTATE {state}"
    return kind(f"no connection to {show_url(url)}: {reason}: {advice}")


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
    """Remember which host a connection has reached."""
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
    parameters = conninfo_to_dict(conninfo)
    # A single value, such as one port for all hosts, is not a list.
    return {name: str(parameters[name]).split(",") for name in _LISTS if "," in str(parameters.get(name) or "")}
