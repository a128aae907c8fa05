"""A process in which one tenant does the worst that its limits allow; run by the tests of fairness.

Arguments: host, port, the kinds of attack separated by commas, a conversation, and the tokens of the tenant's keys.
Prints "attacking" once every kind has had an answer, and at SIGTERM how many answers of each status each kind had.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from string import ascii_lowercase

from support.plainhttp import PlainClient

SEARCH_WORDS, WORD_LETTERS = 40, 24
BULK = 10_000
MAX_BODY = 15 * 1024 * 1024 + 65536
"""The largest body that the server takes by default."""
UNREAD_SECONDS = 20
PAUSE_SECONDS = 0.02
"""After a rejection: shorter than `Retry-After`, but long enough to spare the attacker's own processor."""
PER_KEY = {"search": 8, "body": 70, "stream": 130, "bulk": 2, "page": 4, "held": 30, "unread": 20}
"""Requests at a time, for each key."""


def words() -> str:
    """Return a query that was never used before."""
    return "+".join("".join(random.choices(ascii_lowercase, k=WORD_LETTERS)) for _ in range(SEARCH_WORDS))


class Attacker:
    """The part of the attack that one key makes."""

    def __init__(self, address: tuple[str, int], token: str, conversation: str) -> None:
        self._address = address
        self._token = token
        self._conversation = conversation
        self.statuses: Counter[tuple[str, int]] = Counter()

    async def run(self, kind: str) -> None:
        """Attack in one way, with as many requests at a time as that takes."""
        once: Callable[[PlainClient], Awaitable[int]] = getattr(self, f"_{kind}")
        await asyncio.gather(*(self._again(kind, once) for _ in range(PER_KEY[kind])))

    async def _again(self, kind: str, once: Callable[[PlainClient], Awaitable[int]]) -> None:
        client = PlainClient(self._address, self._token)
        while True:
            status = 0
            with suppress(OSError, EOFError):
                status = await once(client)
            self.statuses[kind, status] += 1
            if status not in (200, 201):
                await asyncio.sleep(PAUSE_SECONDS)

    async def _search(self, client: PlainClient) -> int:
        return (await client.request("GET", f"/v1/search?q={words()}&limit=1000")).status

    async def _body(self, client: PlainClient) -> int:
        """Send a body a byte at a time, until the server has had enough."""
        reader, writer = await client.open()
        writer.write(client.head("POST", f"/v1/conversations/{self._conversation}/messages", 1000) + b"{")
        answered = asyncio.create_task(reader.readuntil(b"\r\n"))
        try:
            while not answered.done():
                writer.write(b" ")
                await asyncio.wait([answered], timeout=1)
            return int((await answered).split()[1])
        finally:
            answered.cancel()
            client.close()

    async def _held(self, client: PlainClient) -> int:
        """Send all of the largest body but its last byte."""
        reader, writer = await client.open()
        writer.write(client.head("POST", f"/v1/conversations/{self._conversation}/messages", MAX_BODY))
        try:
            with suppress(OSError):  # it may be refused before it is read
                writer.write(b" " * (MAX_BODY - 1))
                await writer.drain()
            return int((await reader.readuntil(b"\r\n")).split()[1])
        finally:
            client.close()

    async def _unread(self, client: PlainClient) -> int:
        """Ask for the largest page and take nothing of it but its first line."""
        reader, writer = await client.open()
        writer.write(client.head("GET", f"/v1/conversations/{self._conversation}/messages?limit=1000&{words()}", 0))
        try:
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            self.statuses["unread", status] += 1
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(UNREAD_SECONDS)
            return status
        finally:
            client.close()

    async def _stream(self, client: PlainClient) -> int:
        """Listen to everything that the tenant writes."""
        reader, writer = await client.open()
        writer.write(client.head("GET", "/v1/log/stream", 0))
        try:
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            while status == 200 and await reader.read(2**20):
                self.statuses["stream", 200] += 1
            return status
        finally:
            client.close()

    async def _bulk(self, client: PlainClient) -> int:
        """Append as many messages at once as a request may hold."""
        event = {"event_type": "message.added", "content": {"role": "user", "content": words().replace("+", " ")[:100]}}
        path = f"/v1/conversations/{self._conversation}/events"
        body = json.dumps({"events": [event] * BULK}).encode()
        return (await client.request("POST", path, body)).status

    async def _page(self, client: PlainClient) -> int:
        """Read the largest page, by a question that no answer is kept for."""
        until = (datetime.now(UTC) + timedelta(days=random.random())).isoformat().replace("+00:00", "Z")
        path = f"/v1/conversations/{self._conversation}/messages?limit=1000&until={until}"
        return (await client.request("GET", path)).status


async def attack(host: str, port: str, kinds: str, conversation: str, *tokens: str) -> None:
    """Attack until SIGTERM."""
    attackers = [Attacker((host, int(port)), token, conversation) for token in tokens]
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    tasks = [asyncio.create_task(one.run(kind)) for one in attackers for kind in kinds.split(",")]
    wanted = set(kinds.split(",")) - {"body", "held"}  # which have answers only when the server has had enough
    while wanted - {kind for one in attackers for kind, _ in one.statuses}:
        await asyncio.wait(tasks, timeout=0.05, return_when=asyncio.FIRST_EXCEPTION)
    print("attacking", flush=True)
    await stopped.wait()
    for task in tasks:
        task.cancel()
    statuses = sum((one.statuses for one in attackers), Counter[tuple[str, int]]())
    print(", ".join(f"{kind} {status}: {number}" for (kind, status), number in sorted(statuses.items())), flush=True)


if __name__ == "__main__":
    asyncio.run(attack(*sys.argv[1:]))
