"""A client of server-sent events as browsers are: it remembers the last id, and may be cut off at any instant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.waiting import SECONDS


@dataclass
class ServerSentEvent:
    """An event as it was received."""

    id: int
    name: str
    data: Any


@dataclass
class EventSource:
    """A client of one stream with its own connection, which reads byte by byte.

    Attributes:
        last_id: the last id that came, also without an event; None before any.
        token: sent along, if there is one.
        comments: that came.
        status: of the answer.
        decode: reads the data of events; JSON by default.
    """

    address: tuple[str, int]
    path: str
    last_id: int | None = None
    token: str | None = None
    comments: list[str] = field(default_factory=list)
    status: int = 0
    decode: Callable[[str], Any] = json.loads
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> EventSource:
        """Connects; resumes after the last id where there is one."""
        self._streams = reader, writer = await asyncio.open_connection(*self.address)
        resumed = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id is not None else ""
        token = f"Authorization: Bearer {self.token}\r\n" if self.token is not None else ""
        writer.write(f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{resumed}{token}\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        self.status = int(head.split()[1])
        return self

    async def __aenter__(self) -> EventSource:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        self.cut()

    async def next(self) -> ServerSentEvent:
        """The next event.

        Raises:
            EOFError: the stream has ended.
        """
        fields: dict[str, str] = {}
        while True:
            line = await asyncio.wait_for(self._line(), SECONDS)
            if line.startswith(":"):
                self.comments.append(line[1:].strip())
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            else:
                if "id" in fields:
                    self.last_id = int(fields["id"])
                if "data" in fields:
                    return ServerSentEvent(
                        self.last_id or 0, fields.get("event", "message"), self.decode(fields["data"])
                    )
                fields = {}

    async def _line(self) -> str:
        """A line of the stream, out of the chunks of HTTP/1.1."""
        assert self._streams is not None
        reader = self._streams[0]
        while b"\n" not in self._rest:
            size = int((await reader.readline()) or b"0", 16)
            if size == 0:
                raise EOFError
            self._rest += await reader.readexactly(size)
            await reader.readexactly(2)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    _rest: bytes = b""

    def cut(self) -> None:
        """Cuts the connection, without a word; what was not read yet is lost."""
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._rest = b""
