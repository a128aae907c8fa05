"""A proxy before a server that can fall silent: its connections stay open, take everything, and answer nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from eventstore.concurrency import cancel_and_wait
from tools.listener import Listener


class BlackHole:
    """A proxy.

    Attributes:
        url: the database through the proxy.
        is_silent: connections that are made now are taken and not answered.
        swallowed: bytes that came over connections that are silent.
    """

    def __init__(self, url: str, folder: Path) -> None:
        parts = conninfo_to_dict(url)
        self._host, self._port = str(parts["host"]), int(str(parts["port"]))
        self._links: list[_Link] = []
        self._servers: list[asyncio.StreamWriter] = []
        self.folder = folder
        self.is_silent = False
        self.swallowed = 0
        self.url = f"postgresql://{parts['user']}@/{parts['dbname']}?host={quote(str(folder), safe='')}&port=5432"

    def silence(self) -> None:
        """Fall silent on all connections, and on those to come."""
        self.is_silent = True
        for link in self._links:
            link.is_silent = True

    async def serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Serve one client."""
        link = _Link(self.is_silent)
        self._links.append(link)
        with suppress(OSError):
            if self._host.startswith("/"):
                from_server, server = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
            else:
                from_server, server = await asyncio.open_connection(self._host, self._port)
            self._servers.append(server)
            back = asyncio.create_task(self._pass_on(from_server, client, link))
            try:
                await self._pass_on(from_client, server, link)
            finally:
                await cancel_and_wait([back])
                if not link.is_silent:  # the server never learns that the client of a silent connection is gone
                    server.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, link: _Link) -> None:
        with suppress(OSError):
            while data := await source.read(64 * 1024):
                if link.is_silent:
                    self.swallowed += len(data)
                else:
                    target.write(data)
                    await target.drain()

    def close(self) -> None:
        """End the connections to the server."""
        for server in self._servers:
            server.transport.abort()


class _Link:
    def __init__(self, is_silent: bool) -> None:
        self.is_silent = is_silent


@asynccontextmanager
async def black_hole(url: str) -> AsyncIterator[BlackHole]:
    """A proxy before the server of a database; it forwards all data until it is silenced."""
    with TemporaryDirectory(prefix="blackhole-", dir="/tmp") as name:
        hole = BlackHole(url, Path(name))
        try:
            async with Listener(hole.serve, file=f"{name}/.s.PGSQL.5432"):
                yield hole
        finally:
            hole.close()
