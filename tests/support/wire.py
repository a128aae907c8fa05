"""A proxy between a store and its server that can drop all data without closing a connection."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from eventstore.concurrency import cancel_and_wait
from tools.listener import Listener

_NOTIFICATION = b"A"
_READY = b"Z"


class Link:
    """A connection through the wire.

    Attributes:
        passes_requests, passes_answers: whether what is sent arrives; otherwise it is swallowed, an end too.
    """

    def __init__(self) -> None:
        self.passes_requests = self.passes_answers = True


class Wire:
    """A proxy that listens on its own socket file and forwards all data.

    Attributes:
        url: of the same database, through the wire.
        links: the connections that were made through it and are not closed.
        is_dead: whether nothing passes on connections that are still to come.
        rounds: how often the server has answered and was ready for the next statement: the round trips.
        swallows_notifications: as a pooler does that lends its connections for a transaction.
    """

    def __init__(self, url: str, folder: str) -> None:
        to = conninfo_to_dict(url)
        self._host, self._port = str(to.get("host") or "localhost"), int(to.get("port") or 5432)
        login = quote(str(to.get("user") or ""), safe="")
        if to.get("password"):
            login += f":{quote(str(to['password']), safe='')}"
        self.url = f"postgresql://{login}@/{quote(str(to['dbname']))}?host={quote(folder, safe='')}&port=5432"
        self.links: list[Link] = []
        self.is_dead = False
        self.rounds = 0
        self.swallows_notifications = False
        self._file = Path(folder, ".s.PGSQL.5432")
        self.open()

    def open(self) -> None:
        """Lets connections in, again if they were refused."""
        self._file.unlink(missing_ok=True)
        self._listener = Listener(self._serve, file=str(self._file))

    def refuse(self) -> None:
        """Lets no further connections in."""
        self._listener.refuse()

    async def close(self) -> None:
        """Ends everything."""
        await self._listener.close()

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        link = Link()
        link.passes_requests = link.passes_answers = not self.is_dead
        if self._host.startswith("/"):
            connecting = asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            connecting = asyncio.open_connection(self._host, self._port)
        from_server, to_server = await connecting
        self.links.append(link)
        requests = asyncio.create_task(self._pass_requests(link, from_client, to_server))
        answers = asyncio.create_task(self._pass_answers(link, from_server, to_client))
        try:
            await asyncio.wait([requests, answers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for writer in (to_client, to_server):
                writer.transport.abort()
            await cancel_and_wait([requests, answers])
            self.links.remove(link)

    async def _pass_requests(self, link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if link.passes_requests:
                    target.write(data)
            if not (link.passes_requests and link.passes_answers):
                await asyncio.Event().wait()  # the server does not hear that the client is gone

    async def _pass_answers(self, link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:  # messages: a letter, the length of what follows with itself, what follows
                head = await source.readexactly(5)
                body = await source.readexactly(int.from_bytes(head[1:], "big") - 4)
                self.rounds += head[:1] == _READY
                if link.passes_answers and not (self.swallows_notifications and head[:1] == _NOTIFICATION):
                    target.write(head + body)


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    """A wire to the server of a URL, for the length of a block."""
    folder = tempfile.mkdtemp(prefix="wire-")
    wire = Wire(url, folder)
    try:
        yield wire
    finally:
        await wire.close()
        shutil.rmtree(folder, ignore_errors=True)
