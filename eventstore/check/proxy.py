"""A small proxy before the server, through which some processes of the check go, so that connections can be cut.

It listens on 127.0.0.1 where the server is reached by TCP, and in a private folder where it is reached by a socket
file: so it opens the server to nobody who could not reach it before.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from eventstore.ending import end

_CHUNK = 64 * 1024


class Link:
    """A connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.is_deaf = False

    def cut(self) -> None:
        """Ends it at both ends, without a word."""
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """A proxy that passes everything on until it is told not to.

    Attributes:
        host: where clients connect: an address, or the folder of a socket file.
        port: the port, or the number in the name of the socket file.
    """

    def __init__(self, host: str, port: int) -> None:
        """Listens nowhere yet.

        Args:
            host: where the server is: a host, or the folder of its socket file.
            port: its port.
        """
        self._to = (host, port)
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._folder: Path | None = None
        self._is_frozen = False
        self.host = "127.0.0.1"
        self.port = port

    async def open(self) -> None:
        """Begins to listen."""
        if self._to[0].startswith("/"):
            self._folder = Path(tempfile.mkdtemp(prefix="eventstore-check-"))
            self.host = str(self._folder)
            self._server = await asyncio.start_unix_server(self._accept, _socket_file(self.host, self.port))
        else:
            self._server = await asyncio.start_server(self._accept, self.host, 0)
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends all connections."""
        if self._server is not None:
            self._server.close()
        for link in self._links:
            link.cut()
        await end(self._tasks)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def cut(self, chance: random.Random) -> bool:
        """Cuts one connection; False if there is none."""
        if not self._links:
            return False
        self._any(chance).cut()
        return True

    def deafen(self, chance: random.Random) -> Link | None:
        """Swallows from now on what the server answers on one connection; None if there is none."""
        if not self._links:
            return None
        link = self._any(chance)
        link.is_deaf = True
        return link

    def freeze(self) -> None:
        """Take everything from now on, in both directions and from new clients, and pass nothing on."""
        self._is_frozen = True

    def _any(self, chance: random.Random) -> Link:
        return chance.choice(sorted(self._links, key=id))

    async def _accept(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # the server of asyncio makes one for each connection
        self._tasks.add(task)
        try:
            from_server, server = await self._connect()
        except OSError:
            client.transport.abort()
            self._tasks.discard(task)
            return
        link = Link(client, server)
        self._links.add(link)
        ways = [
            asyncio.create_task(_pass_on(from_client, server, lambda: self._is_frozen)),
            asyncio.create_task(_pass_on(from_server, client, lambda: self._is_frozen or link.is_deaf)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            link.cut()
            await end(ways)
            self._links.discard(link)
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._to
        if host.startswith("/"):
            return await asyncio.open_unix_connection(_socket_file(host, port))
        return await asyncio.open_connection(host, port)


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, is_swallowed: Callable[[], bool]
) -> None:
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            if not is_swallowed():
                target.write(data)
                await target.drain()


def _socket_file(folder: str, port: int) -> str:
    return f"{folder}/.s.PGSQL.{port}"
