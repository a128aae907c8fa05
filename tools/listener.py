"""A server on a socket that ends together with every connection that it has accepted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from eventstore.concurrency import cancel_and_wait

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Serves clients, each in a task.

    A connection is accepted and registered in one step of the event loop. asyncio's own server takes several, and
    closing it in between leaves a connection that nobody closes.

    Attributes:
        port: the port on which it listens, or 0 if it listens on a socket file.
    """

    def __init__(self, serve: Serve, *, host: str = "127.0.0.1", file: str | None = None) -> None:
        """Listen on a socket file or, without one, on a free port of a host; needs a running event loop.

        Args:
            serve: serves a client; its connection is closed when it returns, and it is cancelled by ``close``.
            host: the IPv4 address on which to listen.
            file: the path of a socket file, which does not exist yet.
        """
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET if file is None else socket.AF_UNIX)
        self._socket.bind((host, 0) if file is None else file)
        self._socket.listen()
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1] if file is None else 0
        self._loop.add_reader(self._socket, self._accept)

    def refuse(self) -> None:
        """Accept no further connections."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def close(self) -> None:
        """Accept no further connections, and end the present ones."""
        self.refuse()
        await cancel_and_wait(self._tasks)

    async def __aenter__(self) -> Listener:
        """Return the listener."""
        return self

    async def __aexit__(self, *error: Any) -> None:
        """Close it."""
        await self.close()

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:  # the client is gone again
            return
        task = asyncio.create_task(self._serve_client(client))
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            client.close()  # also if the task was cancelled before it began
            self._tasks.discard(task)

        task.add_done_callback(end)

    async def _serve_client(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            await self._serve(reader, writer)
        finally:
            writer.transport.abort()
