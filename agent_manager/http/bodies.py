"""Answers that are made once and given again until something has changed: what makes polling cheap.

An answer carries an ETag made of the mark of what it was read from, and of what was asked. A client that sends it back
(If-None-Match) gets 304 and no body; one that does not gets the body that was made before. Either costs one look at
the mark. Requests for the same body that arrive while it is made share it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import Response

MAX_BYTES = 64 * 1024 * 1024
_ENTRY_BYTES = 500
"""About what an entry takes beside its body."""

Make = Callable[[], Awaitable[bytes]]


class Frame(NamedTuple):
    """What stands before and after a body."""

    before: bytes = b""
    after: bytes = b""


_NO_FRAME = Frame()


class _Kept(NamedTuple):
    tag: str
    body: bytes


class Bodies:
    """The bodies that were made last, at most so many bytes.

    Attributes:
        made: how many bodies were made, not served from here.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._kept: LRUCache[str, _Kept] = LRUCache(max_bytes, getsizeof=lambda kept: len(kept.body) + _ENTRY_BYTES)
        self._coming: dict[str, asyncio.Task[bytes]] = {}
        self.made = 0

    async def answer(
        self, request: Request, mark: str, make: Make, *, asked: str = "", frame: Frame = _NO_FRAME
    ) -> Response:
        """The answer to a request for what the mark stands for.

        Args:
            asked: what is asked for beside the address, as by the body of a POST.
            frame: stands around the body, and is of this request alone.
            make: makes the body; is not called where it is here already.
        """
        key = f"{request.method} {request.url.path}?{request.url.query} {asked}"
        tag = f'W/"{hashlib.sha256(f"{mark} {key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if _knows(request, tag):
            return Response(status_code=304, headers=headers)
        kept = self._kept.get(key)
        body = kept.body if kept is not None and kept.tag == tag else await self._shared(key, tag, make)
        return Response(frame.before + body + frame.after, headers=headers, media_type="application/json")

    async def _shared(self, key: str, tag: str, make: Make) -> bytes:
        """The body, made by whoever asks first. Whoever stops waiting ends it for nobody else."""
        task = self._coming.get(tag)
        if task is None:
            task = self._coming[tag] = asyncio.create_task(self._make(key, tag, make))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _make(self, key: str, tag: str, make: Make) -> bytes:
        try:
            body = await make()
        finally:
            del self._coming[tag]
        self.made += 1
        self._kept.pop(key, None)
        if len(body) + _ENTRY_BYTES <= self._kept.maxsize:
            self._kept[key] = _Kept(tag, body)
        return body


def _knows(request: Request, tag: str) -> bool:
    """Whether the client says that it has the body of this tag."""
    said = ",".join(request.headers.getlist("if-none-match"))
    known = {each.strip().removeprefix("W/") for each in said.split(",")}
    return "*" in known or tag.removeprefix("W/") in known
