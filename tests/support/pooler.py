"""A pooler in transaction mode: lends a session of the server to one client after another, for a transaction each.

What a session keeps, the next one finds in it: nothing is reset. Prepared statements follow their clients: a session
that lacks one is sent its Parse message first. Notifications are dropped.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from eventstore.concurrency import cancel_and_wait
from tools.listener import Listener

_STARTUP = 196608
_REPORTED = ("server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone", "integer_datetimes",
             "standard_conforming_strings")  # fmt: skip
_ASKS = b"SQ"
"""Messages that the server answers by being ready: Sync, Query."""


def message(kind: bytes, body: bytes) -> bytes:
    """A letter, the length of what follows with itself, what follows."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


async def read_message(source: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A message's letter and what follows its length."""
    head = await source.readexactly(5)
    return head[:1], await source.readexactly(int.from_bytes(head[1:], "big") - 4)


class Client:
    """Somebody who asks.

    Attributes:
        lent: the session that it has, for as long as its transaction.
        statements: that it has prepared, by name: the names of the pooler's own, and what they were made of.
    """

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.writer = writer
        self.lent: Session | None = None
        self.statements: dict[bytes, tuple[bytes, bytes]] = {}


class Session:
    """A session of the server, lent to one client or none."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        self.connection = connection
        self.known: set[bytes] = set()
        self.client: Client | None = None
        self.asked = 0
        self._in_flight: deque[tuple[bytes, bool]] = deque()  # statements in flight, and whether the client sent them

    async def open(self) -> None:
        """Takes over the socket of a connection that has nothing under way."""
        own = socket.socket(fileno=os.dup(self.connection.pgconn.socket))
        self.reader, self.writer = await asyncio.open_connection(sock=own)

    def prepare(self, name: bytes, rest: bytes, *, by_client: bool) -> None:
        """Tells the server of a statement."""
        self._in_flight.append((name, by_client))
        self.writer.write(message(b"P", name + b"\0" + rest))

    def tell(self, client: Client, kind: bytes, body: bytes) -> None:
        """Passes on what the client says, with the pooler's names of statements."""
        if kind == b"P" and body[:1] != b"\0":
            name, _, rest = body.partition(b"\0")
            client.statements[name] = (b"client_%d_%s" % (client.number, name), rest)
            self.prepare(*client.statements[name], by_client=True)
            return
        if kind == b"P":
            self._in_flight.append((b"", True))
        elif kind in b"DC" and body[:1] == b"S" and body[1:-1] in client.statements:
            name, rest = self._named(client, body[1:-1])
            body = b"S" + name + b"\0"
            if kind == b"C":
                self.known.discard(name)
        elif kind == b"B":
            portal, name, rest = body.split(b"\0", 2)
            name = self._named(client, name)[0] if name else name
            body = b"\0".join((portal, name, rest))
        self.asked += kind in _ASKS
        self.writer.write(message(kind, body))

    def _named(self, client: Client, name: bytes) -> tuple[bytes, bytes]:
        ours, rest = client.statements.get(name) or (b"unknown_" + name, b"")
        if rest and ours not in self.known and ours not in {name for name, _ in self._in_flight}:
            self.prepare(ours, rest, by_client=False)
        return ours, rest

    def hear(self, kind: bytes, body: bytes) -> bool:
        """Passes on what the server says, and tells whether the transaction has ended."""
        by_client = True
        if kind == b"1":
            name, by_client = self._in_flight.popleft()
            self.known.add(name)
        elif kind == b"Z":
            self._in_flight.clear()  # after an error, what was on its way is not answered
            self.asked -= 1
        if self.client is not None and by_client and kind != b"A":
            self.client.writer.write(message(kind, body))
        return kind == b"Z" and self.asked == 0 and body == b"I"


class Pooler:
    """Listens on a socket file of its own.

    Attributes:
        url: of the same database, through the pooler.
        rounds: how often the server was ready for the next statement: the round trips.
    """

    def __init__(self, url: str, folder: str) -> None:
        to = conninfo_to_dict(url)
        login, name = quote(str(to.get("user") or ""), safe=""), quote(str(to["dbname"]))
        self.url = f"postgresql://{login}@/{name}?host={quote(folder, safe='')}&port=5432"
        self.rounds = 0
        self._to, self._file = url, f"{folder}/.s.PGSQL.5432"
        self._sessions: list[Session] = []
        self._free: asyncio.Queue[Session] = asyncio.Queue()  # in turn, so that each meets all clients
        self._clients = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, sessions: int) -> None:
        """Connects to the server, so many times, and lets clients in."""
        for _ in range(sessions):
            await self._open_session()
        self._listener = Listener(self._serve, file=self._file)

    async def close(self) -> None:
        """Ends everything."""
        await self._listener.close()
        await cancel_and_wait(self._tasks)
        for session in self._sessions:
            session.writer.transport.abort()
            await session.connection.close()

    async def _open_session(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._to, autocommit=True, client_encoding="UTF8", sslmode="disable", gssencmode="disable"
        )
        try:
            session = Session(connection)
            await session.open()
        except BaseException:  # such as the end of the pooler, which cancels the client for which it is opened
            await connection.close()
            raise
        self._sessions.append(session)
        self._free.put_nowait(session)
        self._tasks.add(asyncio.create_task(self._pass_answers(session)))

    async def _serve(self, source: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        client = Client(self._clients, writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                length = int.from_bytes(await source.readexactly(4), "big")
                if int.from_bytes((await source.readexactly(length - 4))[:4], "big") == _STARTUP:
                    self._let_in(client)
                    await self._pass_requests(client, source)
        finally:
            if client.lent is not None:  # in the midst of a transaction
                client.lent.client = None
                client.lent.writer.transport.abort()
                await self._open_session()

    def _let_in(self, client: Client) -> None:
        client.writer.write(message(b"R", bytes(4)))
        info = self._sessions[0].connection.info
        for name in _REPORTED:
            client.writer.write(message(b"S", f"{name}\0{info.parameter_status(name)}\0".encode()))
        client.writer.write(message(b"K", bytes(8)) + message(b"Z", b"I"))

    async def _pass_requests(self, client: Client, source: asyncio.StreamReader) -> None:
        while True:
            kind, body = await read_message(source)
            if kind == b"X":
                return
            if client.lent is None:
                client.lent = await self._free.get()
                client.lent.client = client
            client.lent.tell(client, kind, body)

    async def _pass_answers(self, session: Session) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, body = await read_message(session.reader)
                self.rounds += kind == b"Z"
                if session.hear(kind, body) and session.client is not None:
                    session.client.lent = session.client = None
                    self._free.put_nowait(session)


@asynccontextmanager
async def pooler_to(url: str, sessions: int) -> AsyncIterator[Pooler]:
    """A pooler with so many sessions of the server of a URL, for the length of a block."""
    folder = tempfile.mkdtemp(prefix="pooler-")
    pooler = Pooler(url, folder)
    try:
        await pooler.open(sessions)
        yield pooler
    finally:
        await pooler.close()
        shutil.rmtree(folder, ignore_errors=True)
