"""The body of a request is freed when the request ends, however it ends, not at the next garbage collection."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from support.callers import People
from support.plainhttp import PlainClient
from support.serving import served
from support.waiting import until_async
from uvicorn.protocols.http.h11_impl import H11Protocol

from eventstore import EventStore, Settings

pytestmark = pytest.mark.shared_database

SIZE = 1_200_000
"""More than an event may take, and less than a body."""
LARGE = 50_000
"""Larger than anything that a request leaves besides what it has sent."""
AT_ONCE = 30
"""Bodies of this size that take more memory than a tenant may use."""
BODY_SECONDS = 0.5

Connect = Callable[[], PlainClient]
Ask = Callable[[Connect, str], Awaitable[int]]


async def _unfinished(connect: Connect, path: str) -> int:
    """Send a body without its last byte."""
    client = connect()
    reader, writer = await client.open()
    writer.write(client.head("POST", path, SIZE + 1) + b" " * SIZE)
    return await _status(client, reader)


async def _chunked(connect: Connect, path: str) -> int:
    """Send a body whose length shows only as it arrives."""
    client = connect()
    reader, writer = await client.open()
    head = client.head("POST", path, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    writer.write(head + 2 * (b"%x\r\n%s\r\n" % (SIZE, b" " * SIZE)))
    return await _status(client, reader)


async def _cut(connect: Connect, path: str) -> int:
    """Disconnect while the body is being sent."""
    client = connect()
    _, writer = await client.open()
    writer.write(client.head("POST", path, SIZE + 1) + b" " * SIZE)
    await writer.drain()
    client.close()
    return 0


async def _together(connect: Connect, path: str) -> int:
    """Send more bodies at the same time than a tenant may."""
    return max(await asyncio.gather(*(_unfinished(connect, path) for _ in range(AT_ONCE))))


async def _status(client: PlainClient, reader: asyncio.StreamReader) -> int:
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    client.close()
    return status


def _posting(body: bytes) -> Ask:
    async def post(connect: Connect, path: str) -> int:
        client = connect()
        status = (await client.request("POST", path, body)).status
        client.close()
        return status

    return post


def _message(role: str, size: int) -> bytes:
    return json.dumps({"role": role, "content": "x" * size}).encode()


ENDS: dict[str, tuple[Ask, int]] = {
    "accepted": (_posting(_message("user", 500_000)), 201),
    "invalid JSON": (_posting(b"{" + b" " * SIZE), 400),
    "not UTF-8": (_posting(b'"' + b"\xff" * SIZE + b'"'), 400),
    "an invalid value": (_posting(_message("nobody", 500_000)), 422),
    "too large an event": (_posting(_message("user", SIZE)), 413),
    "too large a body": (_chunked, 413),
    "too slow": (_unfinished, 408),
    "too many at once": (_together, 429),
    "cut": (_cut, 0),
}


@contextmanager
def uncollected() -> Iterator[list[Any]]:
    """The objects that the block leaves behind for the garbage collector, which waits until the end of the block."""
    found: list[Any] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def _no_connection_is_left() -> bool:
    return not any(issubclass(type(each), H11Protocol) for each in gc.get_objects())


@pytest.mark.parametrize(("ask", "status"), ENDS.values(), ids=list(ENDS))
@pytest.mark.slow
async def test_no_body_waits_for_the_garbage_collector(settings: Settings, ask: Ask, status: int) -> None:
    async with (
        EventStore(settings.model_copy(update={"body_seconds": BODY_SECONDS, "max_content_bytes": 2**20})) as store,
        served(store, requires_tokens=True) as here,
    ):
        people = People(store, here.url)
        ana = await people.person("acme", "ana")
        path = f"/v1/conversations/{(await ana.post('/v1/conversations')).json()['id']}/messages"
        await people.close()
        connect = partial(PlainClient, here.address, ana.token)
        await ask(connect, path)  # what is made once is made now
        with uncollected() as garbage:
            assert await ask(connect, path) == status
            await until_async(_no_connection_is_left, "all connections are freed")
        sent = [
            f"{len(each):,} bytes in a {type(holder).__name__}"
            for holder in garbage
            for each in gc.get_referents(holder)
            if isinstance(each, bytes | bytearray | str) and len(each) > LARGE
        ]
        assert not sent
        garbage.clear()
