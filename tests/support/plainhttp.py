"""A client of HTTP/1.1 that costs little, for tests that measure the server: one request at a time on a connection."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's value."""
        return json.loads(self.body)


class PlainClient:
    """Sends requests over a connection that is made when it is needed.

    Args:
        token: sent along with each request.
        source: the address that the connections come from.
    """

    def __init__(self, address: tuple[str, int], token: str, source: str = "127.0.0.1") -> None:
        self._address = address
        self._token = token
        self._source = source
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def head(self, method: str, path: str, length: int) -> bytes:
        """Return the head of a request."""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {self._address[0]}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, unless there is a connection."""
        if self._streams is None:
            host, port = self._address
            self._streams = await asyncio.open_connection(host, port, local_addr=(self._source, 0), limit=2**20)
        return self._streams

    async def request(self, method: str, path: str, value: Any = None) -> Answer:
        """Send a request, its body as JSON, and return the answer.

        Raises:
            OSError, EOFError: the connection was lost, also on the second try.
        """
        body = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        for is_last in (False, True):
            reader, writer = await self.open()
            try:
                writer.write(self.head(method, path, len(body)) + body)
                return await self._answer(reader)
            except (OSError, EOFError):
                self.close()
                if is_last:
                    raise
            except BaseException:
                self.close()
                raise
        raise AssertionError("the last try returns or raises")

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(lines[0].split()[1]), headers, body)

    def close(self) -> None:
        """Abort the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
