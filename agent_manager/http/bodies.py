"""Answers that are made once and given again until something has changed: what makes polling cheap.

What was made is kept with the mark of what it was read from, for one caller and one question. While the mark is the
same it is not made again, and a client that sends its ETag back (If-None-Match) gets 304 and no body. Either costs one
look at the mark. Requests for the same body that arrive while it is made share it.

The mark changes whenever anybody has written, the tag only where the answer has: it is made of the answer itself. So
nobody learns from a tag that somebody else is writing. A cursor that holds a position of the log is kept beside the
body, sealed anew for every answer, and not part of the tag: it goes on with the log.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.identity import Identity

MAX_BYTES = 64 * 1024 * 1024
_ENTRY_BYTES = 500
"""About what an entry takes beside its body."""


class Body(NamedTuple):
    """A body that was made.

    Attributes:
        text: JSON.
        cursor: of the next page, to be sealed and put in the place of ``"next":null``; None if there is none, or if it
            is in the text.
    """

    text: bytes
    cursor: str | None = None


Make = Callable[[], Awaitable[Body]]
Seal = Callable[[str], str]


class Frame(NamedTuple):
    """What stands before and after a body."""

    before: bytes = b""
    after: bytes = b""


NO_FRAME = Frame()


_NO_NEXT = b'"next":null'


class _Kept(NamedTuple):
    mark: str
    tag: str
    body: Body

    @property
    def size(self) -> int:
        return len(self.body.text) + len(self.body.cursor or "") + _ENTRY_BYTES


class Bodies:
    """The bodies that were made last, at most so many bytes.

    Attributes:
        made: how many bodies were made, not served from here.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._kept: LRUCache[str, _Kept] = LRUCache(max_bytes, getsizeof=lambda kept: kept.size)
        self._coming: dict[tuple[str, str], asyncio.Task[_Kept]] = {}
        self.made = 0

    async def answer(
        self,
        request: Request,
        mark: str,
        make: Make,
        *,
        whose: Identity,
        seal: Seal,
        asked: str = "",
        frame: Frame = NO_FRAME,
    ) -> Response:
        """The answer to a request for what the mark stands for.

        Args:
            whose: on whose behalf it is made; nobody else is given it, nor the same caller with other scopes.
            seal: seals the cursor of the body.
            asked: what is asked for beside the address, as by the body of a POST.
            frame: stands around the body, and is of this request alone.
            make: makes the body; is not called where it is here already.
        """
        scopes = sorted(whose.scopes)
        question = (
            whose.caller.tenant,
            whose.caller.user,
            scopes,
            request.method,
            request.url.path,
            request.url.query,
            asked,
        )
        key = repr(question)
        kept = self._kept.get(key)
        if kept is None or kept.mark != mark:
            kept = await self._shared(key, mark, make)
        headers = {"ETag": kept.tag, "Cache-Control": "private, no-cache"}
        if _knows(request, kept.tag):
            return Response(status_code=304, headers=headers)
        text, cursor = kept.body
        if cursor is not None:
            before, _, after = text.rpartition(_NO_NEXT)
            text = before + b'"next":"' + seal(cursor).encode() + b'"' + after
        return Response(frame.before + text + frame.after, headers=headers, media_type="application/json")

    async def _shared(self, key: str, mark: str, make: Make) -> _Kept:
        """The body, made by whoever asks first. Whoever stops waiting ends it for nobody else."""
        task = self._coming.get((key, mark))
        if task is None:
            task = self._coming[key, mark] = asyncio.create_task(self._make(key, mark, make))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _make(self, key: str, mark: str, make: Make) -> _Kept:
        try:
            body = await make()
        finally:
            del self._coming[key, mark]
        self.made += 1
        made = _Kept(mark, _tag(key, body), body)
        self._kept.pop(key, None)
        if made.size <= self._kept.maxsize:
            self._kept[key] = made
        return made


def _tag(key: str, body: Body) -> str:
    """Of one caller's question and its answer: it is worth nothing to anybody else."""
    is_last = b"\0" if body.cursor is None else b"\1"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass") + is_last + body.text)
    return f'W/"{digest.hexdigest()[:32]}"'


def _knows(request: Request, tag: str) -> bool:
    """Whether the client says that it has the body of this tag."""
    said = ",".join(request.headers.getlist("if-none-match"))
    known = {each.strip().removeprefix("W/") for each in said.split(",")}
    return "*" in known or tag.removeprefix("W/") in known
