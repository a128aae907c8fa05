"""Answers of JSON-RPC agents before a2a-sdk reads them: in the spelling that it knows.

The SDK of 1.x silently leaves out what it does not know, such as a state that is spelled ``CANCELLED``, and that of 0.3
gives up on the whole stream. So what is plain is respelled here, and what is not is refused before it is lost.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, cast

from agent_manager.agents.errors import InvalidUpdate
from agent_manager.agents.updates import respelled_update

if TYPE_CHECKING:  # see agents/cards.py
    import httpx


def respell(response: httpx.Response, refused: list[InvalidUpdate]) -> None:
    """Respell an answer while it is read.

    Args:
        refused: gets the errors for what is left out of a stream. What is refused in an answer at once is raised.
    """
    import httpx

    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "content-encoding" in response.headers or kind not in ("text/event-stream", "application/json"):
        return
    sent = cast("httpx.AsyncByteStream", response.stream)

    class Respelled(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in _events(sent, refused) if kind == "text/event-stream" else _whole(sent):
                yield piece

        async def aclose(self) -> None:
            await sent.aclose()

    response.stream = Respelled()


async def _whole(sent: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    yield _payload(b"".join([piece async for piece in sent]))


async def _events(sent: AsyncIterable[bytes], refused: list[InvalidUpdate]) -> AsyncIterator[bytes]:
    """Server-sent events, each as soon as it is complete."""
    lines: list[bytes] = []
    rest: list[bytes] = []
    async for piece in sent:
        rest.append(piece)
        if b"\n" not in piece:
            continue
        *complete, last = b"".join(rest).split(b"\n")
        rest = [last]
        for line in complete:
            lines.append(line)
            if not line.strip():
                try:
                    yield b"".join(map(_line, lines))
                except InvalidUpdate as error:
                    refused.append(error)
                lines = []
    yield b"\n".join([*lines, b"".join(rest)])


def _line(line: bytes) -> bytes:
    if not line.startswith(b"data:"):
        return line + b"\n"
    return b"data: " + _payload(line.removeprefix(b"data:").strip()) + b"\n"


def _payload(text: bytes) -> bytes:
    try:
        sent = json.loads(text)
    except (ValueError, RecursionError):
        return text  # the SDK says what is wrong with it
    if not isinstance(sent, dict) or "jsonrpc" not in sent or not isinstance(sent.get("result"), dict):
        return text
    result = respelled_update(sent["result"])
    return text if result == sent["result"] else json.dumps(sent | {"result": result}).encode()
