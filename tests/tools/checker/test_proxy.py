"""The proxy forwards everything until a test makes it cut a connection, or drop its replies."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from support.waiting import until_async

from tools.checker.proxy import Proxy

pytestmark = pytest.mark.any_server

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect: TypeAlias = Callable[[], Awaitable[Streams]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data.upper())
    writer.close()


@asynccontextmanager
async def behind_a_proxy(folder: Path | None) -> AsyncIterator[tuple[Proxy, Connect]]:
    """A server that echoes, on a socket file or on TCP, and a way to it through a proxy."""
    if folder is None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        proxy = Proxy("127.0.0.1", server.sockets[0].getsockname()[1])
    else:
        server = await asyncio.start_unix_server(echo, folder / ".s.PGSQL.5432")
        proxy = Proxy(str(folder), 5432)
    await proxy.open()

    async def connect() -> Streams:
        if folder is None:
            return await asyncio.open_connection(proxy.host, proxy.port)
        return await asyncio.open_unix_connection(f"{proxy.host}/.s.PGSQL.{proxy.port}")

    try:
        yield proxy, connect
    finally:
        await proxy.close()
        server.close()
        assert folder is None or not os.path.exists(proxy.host)  # noqa: ASYNC240 - of a folder in memory


@pytest.fixture(params=["TCP", "socket file"])
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Proxy, Connect]]:
    async with behind_a_proxy(None if request.param == "TCP" else tmp_path) as both:
        yield both


async def exchange(streams: Streams, text: bytes) -> bytes:
    """Send bytes, and return the reply."""
    streams[1].write(text)
    return await asyncio.wait_for(streams[0].read(1000), 10)


async def test_the_proxy_forwards_all_data(way: tuple[Proxy, Connect]) -> None:
    _, connect = way
    one, other = await connect(), await connect()
    assert await exchange(one, b"one") == b"ONE"
    assert await exchange(other, b"other") == b"OTHER"
    one[1].close()
    assert await exchange(other, b"still") == b"STILL"
    other[1].close()


async def test_a_cut_connection_ends_and_others_stay(way: tuple[Proxy, Connect]) -> None:
    proxy, connect = way
    assert not proxy.cut(random.Random(1))
    connections = [await connect() for _ in range(3)]
    for connection in connections:
        assert await exchange(connection, b"hello") == b"HELLO"
    assert proxy.cut(random.Random(1))
    answers = []
    for connection in connections:
        try:
            answers.append(await exchange(connection, b"again"))
        except ConnectionError:
            answers.append(b"")
    assert sorted(answers) == [b"", b"AGAIN", b"AGAIN"]
    for _, writer in connections:
        writer.close()


async def test_a_connection_whose_replies_are_dropped_stays_open(way: tuple[Proxy, Connect]) -> None:
    proxy, connect = way
    assert proxy.drop_replies(random.Random(1)) is None
    reader, writer = await connect()
    assert await exchange((reader, writer), b"hello") == b"HELLO"
    link = proxy.drop_replies(random.Random(1))
    assert link is not None
    writer.write(b"are you there?")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1000), 0.2)
    link.cut()
    with suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(1000), 10) == b""
    writer.close()


async def test_a_connection_to_an_unreachable_server_ends(tmp_path: Path) -> None:
    proxy = Proxy(str(tmp_path), 5432)
    await proxy.open()
    try:

        async def is_ended() -> bool:
            reader, writer = await asyncio.open_unix_connection(f"{proxy.host}/.s.PGSQL.5432")
            try:
                return await asyncio.wait_for(reader.read(1), 10) == b""
            except ConnectionError:
                return True
            finally:
                writer.close()

        await until_async(is_ended, "the connection has ended")
    finally:
        await proxy.close()
