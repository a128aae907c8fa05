"""A listener ends every connection that it has accepted, however late, and serves those that it has not refused."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tools.listener import Listener

pytestmark = pytest.mark.any_server


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)


def connected(file: Path) -> socket.socket:
    """Connect, as far as the kernel does before anybody accepts."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(file))
    return client


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_ends_however_shortly_before_the_end_it_was_accepted(tmp_path: Path, turns: int) -> None:
    listener = Listener(echo, file=str(tmp_path / "socket"))
    with connected(tmp_path / "socket") as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await listener.close()
        with suppress(ConnectionError):  # as one ends that was not accepted
            assert client.recv(1) == b""


async def test_a_listener_that_refuses_serves_those_it_has(tmp_path: Path) -> None:
    async with Listener(echo, file=str(tmp_path / "socket")) as listener:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        listener.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(b"two")
        assert await reader.readexactly(3) == b"two"
    assert await reader.read() == b""
    writer.close()
