"""A small proxy in front of the server, through which some processes of the check connect, so that it can cut them off.

It listens on 127.0.0.1 if the server is reached by TCP, and in a private folder if it is reached by a socket file, so
it opens the server to no one who could not reach it before.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from eventstore.concurrency import cancel_and_wait
from tools.listener import Listener

_CHUNK_BYTES = 64 * 1024


class Link:
    """A connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.drops_replies = False

    def cut(self) -> None:
        """Abort the connection at both ends."""
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """A proxy that forwards everything until a method makes it cut, drop replies, freeze or refuse.

    Attributes:
        refused: number of connections that were refused.
        host: address for clients: an IP address, or the folder of a socket file.
        port: the port, or the number in the name of the socket file.
    """

    def __init__(self, host: str, port: int) -> None:
        """Prepare a proxy that does not listen yet.

        Args:
            host: host of the server, or the folder of its socket file.
            port: port of the server.
        """
        self._server_address = (host, port)
        self._links: set[Link] = set()
        self._listener: Listener | None = None
        self._folder: Path | None = None
        self._is_frozen = self._refuses = False
        self.refused = 0
        self.host = "127.0.0.1"
        self.port = port

    async def open(self) -> None:
        """Start to listen."""
        if self._server_address[0].startswith("/"):
            self._folder = Path(tempfile.mkdtemp(prefix="eventstore-check-"))
            self.host = str(self._folder)
            self._listener = Listener(self._serve, file=_socket_file(self.host, self.port))
        else:
            self._listener = Listener(self._serve, host=self.host)
            self.port = self._listener.port

    async def close(self) -> None:
        """Stop to listen, and cut all connections."""
        if self._listener is not None:
            await self._listener.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def cut(self, rng: random.Random) -> bool:
        """Cut a random connection; return False if there is none."""
        if not self._links:
            return False
        self._choose(rng).cut()
        return True

    def drop_replies(self, rng: random.Random) -> Link | None:
        """Drop the server's replies on a random connection from now on; return None if there is none."""
        if not self._links:
            return None
        link = self._choose(rng)
        link.drops_replies = True
        return link

    def drop_all_replies(self) -> None:
        """Drop the server's replies on every present connection from now on."""
        for link in self._links:
            link.drops_replies = True

    def freeze(self) -> None:
        """Accept everything from now on, in both directions and from new clients, and forward nothing."""
        self._is_frozen = True

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones, as if the server were away."""
        self._refuses = True
        for link in self._links:
            link.cut()

    def admit(self) -> None:
        """Accept connections again."""
        self._refuses = False

    def _choose(self, rng: random.Random) -> Link:
        return rng.choice(sorted(self._links, key=id))

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refuses:
            self.refused += 1
            return
        try:
            from_server, server = await self._connect()
        except OSError:
            return
        link = Link(client, server)
        self._links.add(link)
        directions = [
            asyncio.create_task(_forward(from_client, server, lambda: self._is_frozen)),
            asyncio.create_task(_forward(from_server, client, lambda: self._is_frozen or link.drops_replies)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            link.cut()
            await cancel_and_wait(directions)
            self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._server_address
        if host.startswith("/"):
            return await asyncio.open_unix_connection(_socket_file(host, port))
        return await asyncio.open_connection(host, port)


async def _forward(source: asyncio.StreamReader, target: asyncio.StreamWriter, is_dropped: Callable[[], bool]) -> None:
    with suppress(OSError):
        while data := await source.read(_CHUNK_BYTES):
            if not is_dropped():
                target.write(data)
                await target.drain()


def _socket_file(folder: str, port: int) -> str:
    return f"{folder}/.s.PGSQL.{port}"
