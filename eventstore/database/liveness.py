"""The deadline of every wait on the server.

A server can vanish without closing a connection: its machine loses power, a network partition drops its packets, a
proxy goes on to acknowledge bytes that it no longer forwards. ``tcp_user_timeout`` ends a connection whose packets
nobody acknowledges, and nothing else; keepalives do not run while data is unacknowledged. A fixed time limit for
replies would have to be longer than the longest rebuild.

So a client that has waited for ``SILENCE_SECONDS`` without receiving a byte connects a second time, and queries
the state of the server process that has to reply.

- It works: the client goes on waiting, and queries again after the next silence.
- It is gone, or has been idle for more than a second: its reply was lost. The connection is closed.
- The server does not reply within ``PROBE_SECONDS``, and no connection to its address has received a byte meanwhile:
  all of them are closed (those of this event loop), idle ones too, so that a repeated query does not get another dead
  one.
- The server replies, but the process is unknown: behind a pooler, whose clients never learn it; on a standby, which may
  be one of several behind one address; or because the server accepts no further connection. Then the connection is
  closed after ``reply_seconds`` of silence.

Closing shuts down the socket: everything that waits on it, in whatever way, sees the end of the connection at once.
"""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections import defaultdict
from contextlib import suppress
from enum import Enum, auto
from typing import TypeAlias

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from eventstore.database.queries import query

SILENCE_SECONDS = 3.0
"""The silence after which the server is probed, longer than nearly every statement: more probes would burden it."""
PROBE_SECONDS = 4.0
"""A server that works accepts a connection within this time, however busy it is."""
REPLY_SECONDS = 25.0
"""The longest silence if the process is unknown."""

_BACKEND_STATE = query("eventstore.database", "backend_state")
_EXCLUDED = {"target_session_attrs", "load_balance_hosts", "connect_timeout", "application_name", "options"}


class _Verdict(Enum):
    WORKS = auto()
    LOST = auto()
    UNKNOWN = auto()
    NO_REPLY = auto()


class Liveness:
    """The monitor of one connection: how long its server has sent nothing although a reply is due.

    Attributes:
        is_backend_known: whether the connection's process id is that of its server process.
        reply_seconds: the longest silence if the server process is unknown.
        reason: why the connection was closed; empty unless it was closed here.
    """

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._loop = asyncio.get_running_loop()
        self._is_waiting = False
        self._silent_since = 0.0
        self._received_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._probe: asyncio.Task[None] | None = None
        self.is_backend_known = True
        self.reply_seconds = REPLY_SECONDS
        self.reason = ""
        _connections.add(self)

    def begin(self) -> None:
        """Note that the server now owes a reply."""
        self._is_waiting = True
        self._silent_since = self._loop.time()
        if self._timer is None:
            self._schedule(SILENCE_SECONDS)

    def received(self) -> None:
        """Note that the server has sent or accepted bytes."""
        self._received_at = self._silent_since = self._loop.time()

    def end(self) -> None:
        """Note that the server owes no reply."""
        self._is_waiting = False

    def _schedule(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._check)

    def _check(self) -> None:
        # One timer serves many statements, so each costs two assignments.
        self._timer = None
        if not self._is_waiting or self._pgconn.status != pq.ConnStatus.OK:
            return
        rest = self._silent_since + SILENCE_SECONDS - self._loop.time()
        if rest > 0:
            self._schedule(rest)
        elif self._probe is None:
            self._probe = asyncio.create_task(self._run_probe(), name="eventstore-liveness")

    async def _run_probe(self) -> None:
        silent_since = self._silent_since
        try:
            locks = _probe_locks.setdefault(self._loop, defaultdict(asyncio.Lock))
            async with locks[_address(self._pgconn)]:
                if self._is_over(silent_since):
                    return
                began = self._loop.time()
                verdict = await _probe(self._pgconn, is_backend_known=self.is_backend_known)
            silence = self._loop.time() - silent_since
            neighbours = self._neighbours()
            if verdict is _Verdict.NO_REPLY and any(each._received_at > began for each in neighbours):
                verdict = _Verdict.UNKNOWN  # only new connections are not accepted
            if verdict is _Verdict.NO_REPLY:
                for each in neighbours:
                    each._shut_down(f"the server has not replied for {silence:.0f} seconds")
            elif self._is_over(silent_since):
                return
            elif verdict is _Verdict.LOST:
                self._shut_down(f"the reply of the server was lost: {silence:.0f} seconds without a byte of it")
            elif verdict is _Verdict.UNKNOWN and silence > self.reply_seconds:
                self._shut_down(f"the server has not replied for {silence:.0f} seconds")
        except psycopg.Error:
            return  # closed meanwhile
        finally:
            self._probe = None
            if self._is_waiting and not self.reason and self._timer is None:
                self._schedule(SILENCE_SECONDS)

    def _is_over(self, silent_since: float) -> bool:
        """Return whether the server has replied, or the connection was closed, since a silence began."""
        return not self._is_waiting or self._silent_since != silent_since or bool(self.reason)

    def _neighbours(self) -> list[Liveness]:
        """Return the open connections of this event loop to the same address, this one included."""
        address, found = _address(self._pgconn), []
        for each in list(_connections):
            with suppress(psycopg.Error):  # already closed
                if each._loop is self._loop and _address(each._pgconn) == address:
                    found.append(each)
        return found

    def _shut_down(self, reason: str) -> None:
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self._pgconn.socket)) as own:
            self.reason = reason
            own.shutdown(socket.SHUT_RDWR)


_connections: weakref.WeakSet[Liveness] = weakref.WeakSet()
_Locks: TypeAlias = defaultdict[tuple[bytes, ...], asyncio.Lock]
_probe_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Locks] = weakref.WeakKeyDictionary()
"""Locks that allow one probe at a time for each address: many connections may wait for one database lock."""


def _address(pgconn: PGconn) -> tuple[bytes, bytes, bytes]:
    return pgconn.host, pgconn.hostaddr, pgconn.port


async def _probe(pgconn: PGconn, *, is_backend_known: bool) -> _Verdict:
    """Query the server, on a new connection, for the state of the process of a connection."""
    try:
        conninfo, pid = _conninfo(pgconn), pgconn.backend_pid
        on_standby = pgconn.parameter_status(b"in_hot_standby") == b"on"
    except psycopg.Error:
        return _Verdict.LOST
    probe = asyncio.create_task(_query_backend_state(conninfo, pid))
    done, _ = await asyncio.wait((probe,), timeout=PROBE_SECONDS)
    if not done:
        probe.cancel()  # not awaited: its end may take seconds, too
        return _Verdict.NO_REPLY
    verdict = probe.result()
    if verdict in (_Verdict.WORKS, _Verdict.LOST) and (on_standby or not is_backend_known):
        return _Verdict.UNKNOWN
    return verdict


async def _query_backend_state(conninfo: str, pid: int) -> _Verdict:
    try:
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            row = await (await connection.execute(_BACKEND_STATE, {"pid": pid})).fetchone()
        return _Verdict.WORKS if row is not None and not row[0] else _Verdict.LOST
    except psycopg.errors.ConnectionTimeout:
        return _Verdict.NO_REPLY
    except psycopg.Error:
        # A server may refuse this login, perhaps because it has too many connections, and still work.
        status = await asyncio.to_thread(pq.PGconn.ping, conninfo.encode())
        return _Verdict.UNKNOWN if status in (pq.Ping.OK, pq.Ping.REJECT) else _Verdict.NO_REPLY


def _conninfo(pgconn: PGconn) -> str:
    """Return the connection string of a connection, restricted to the one server that it has reached."""
    options = {option.keyword.decode(): option.val.decode() for option in pgconn.info if option.val is not None}
    options = {name: value for name, value in options.items() if name not in _EXCLUDED}
    options |= {"host": pgconn.host.decode(), "hostaddr": pgconn.hostaddr.decode(), "port": pgconn.port.decode()}
    options = {name: value for name, value in options.items() if value}
    return make_conninfo("", **options, connect_timeout=int(PROBE_SECONDS), application_name="eventstore probe")
