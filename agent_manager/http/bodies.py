"""Answers that are made once and given again until something has changed: what makes polling cheap.

What was made is kept with the mark of what it was read from, for one caller and one question. While the mark is the
same it is not made again, and a client that sends its ETag back (If-None-Match) gets 304 and no body. Either costs one
look at the mark. A question is the endpoint with the values that it was asked for, not the address: what an endpoint
does not know makes no other question.

Of one question one body is made at a time. Requests that arrive meanwhile share it if their mark is the same, else they
share the one that is made next; so a client that asks again and again, while others write, makes one body after the
other and no more. A large answer, which is made of as much as its tenant has, needs one of :data:`LARGE_AT_A_TIME`
permits, which the tenants get in turn.

The mark changes whenever anybody has written, the tag only where the answer has: it is made of the answer itself. So
nobody learns from a tag that somebody else is writing. A cursor that holds a position of the log is kept beside the
body, sealed anew for every answer, and not part of the tag: it goes on with the log.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

from psycopg_pool import PoolTimeout
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.http.refusals import Busy
from agent_manager.http.spool import MEMORY_BYTES, BodyResponse, BodyWriter, Spool, StoredBody
from agent_manager.identity import Identity
from eventstore.database.fairness import FairQueue

CACHED_BYTES = MEMORY_BYTES // 2
"""Of bodies in memory that are kept for further requests."""
CACHED_FILES = 64
"""Bodies in files that are kept."""
LARGE_AT_A_TIME = 4
"""Large answers that are made at a time."""
_ENTRY_BYTES = 500
"""About what an entry takes beside its body."""

Make = Callable[[BodyWriter], Awaitable[None]]
"""Writes a body."""
Seal = Callable[[str], str]


class Frame(NamedTuple):
    """What stands before and after a body."""

    before: bytes = b""
    after: bytes = b""


NO_FRAME = Frame()


class _Kept(NamedTuple):
    tenant: str
    mark: str
    tag: str
    body: StoredBody
    cursor: str | None
    index: Any
    memory: int


class _Making:
    """A body that is being made, or will be.

    Attributes:
        mark: of what it holds at least. Until it has begun, that of the latest request for it.
        waiting: requests that wait for it; when there is none, nobody makes it.
    """

    def __init__(self, mark: str, make: Make) -> None:
        self.mark = mark
        self.make = make
        self.has_begun = False
        self.waiting = 0
        self.task: asyncio.Task[_Kept]


class Bodies:
    """The bodies that were made last.

    Args:
        max_bytes: of all bodies, those included that are being made or sent.
        seconds: to wait for a permit at most.

    Attributes:
        made: how many bodies were made, not served from here.
    """

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._memory = 0
        self._files = 0
        self._making: dict[str, list[_Making]] = {}
        self._large = FairQueue(LARGE_AT_A_TIME)
        self._seconds = seconds
        self.spool = Spool(max_bytes, self._make_room)
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
        is_large: bool = False,
    ) -> Response:
        """The answer to a request for what the mark stands for.

        Args:
            whose: on whose behalf it is made; nobody else is given it, nor the same caller with other scopes.
            seal: seals the cursor of the body.
            asked: what is asked of the endpoint: the values of all that it knows.
            frame: stands around the body, and is of this request alone.
            make: makes the body; is not called where it is here already.
            is_large: whether the answer may be as large as what the tenant has.

        Raises:
            InputError, TooMany, Busy: see :meth:`~agent_manager.http.spool.Spool.reserve`.
        """
        caller = whose.caller
        endpoint = request.scope["route"].path
        key = repr((caller.tenant, caller.user, sorted(whose.scopes), request.method, endpoint, asked))
        kept = self._kept.get(key)
        if kept is None or kept.mark != mark:
            kept = await self._shared(key, mark, make, caller.tenant, is_large=is_large)
        elif key in self._kept:
            self._kept.move_to_end(key)
        headers = {"ETag": kept.tag, "Cache-Control": "private, no-cache"}
        if _knows(request, kept.tag):
            return Response(status_code=304, headers=headers)
        after = frame.after
        if kept.cursor is not None:
            after = b',"next":"' + seal(kept.cursor).encode() + b'"}' + after
        return BodyResponse(kept.body, frame.before, after, headers)

    async def _shared(self, key: str, mark: str, make: Make, tenant: str, *, is_large: bool) -> _Kept:
        """The body, made for all who ask for it meanwhile. Whoever stops waiting ends it for nobody else."""
        queue = self._making.setdefault(key, [])
        making = next((each for each in queue if each.mark == mark or not each.has_begun), None)
        if making is None:
            making = _Making(mark, make)
            before = queue[-1].task if queue else None
            making.task = asyncio.create_task(self._make(key, making, before, tenant, is_large=is_large))
            making.task.add_done_callback(lambda done: done.cancelled() or done.exception())
            queue.append(making)
        elif not making.has_begun:
            making.mark, making.make = mark, make
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.waiting -= 1
            if not making.waiting and not making.task.done():
                self._forget(key, making)
                making.task.cancel()

    async def _make(
        self, key: str, making: _Making, before: asyncio.Task[_Kept] | None, tenant: str, *, is_large: bool
    ) -> _Kept:
        try:
            if before is not None:
                await asyncio.wait([before])
            try:
                async with self._large.permit(tenant, self._seconds) if is_large else nullcontext():
                    making.has_begun = True
                    return await self._write(key, making, tenant)
            except PoolTimeout:
                raise Busy("too many large answers are being made: come again", "large answers") from None
        finally:
            self._forget(key, making)

    async def _write(self, key: str, making: _Making, tenant: str) -> _Kept:
        mark = making.mark
        before = self._kept.get(key)
        out = BodyWriter(self.spool, tenant, None if before is None else (before.body, before.index))
        try:
            await making.make(out)
            body = await out.finish()
        except BaseException:
            out.discard()
            raise
        self.made += 1
        memory = _ENTRY_BYTES + len(key) + out.index_bytes + (0 if body.is_in_file else body.size)
        kept = _Kept(tenant, mark, _tag(key, body, out.cursor), body, out.cursor, out.index, memory)
        self._drop(key)
        self._kept[key] = kept
        self._memory += kept.memory
        self._files += body.is_in_file
        while self._memory > CACHED_BYTES or self._files > CACHED_FILES:
            self._drop(next(iter(self._kept)))
        return kept

    def _forget(self, key: str, making: _Making) -> None:
        queue = self._making.get(key, [])
        if making in queue:
            queue.remove(making)
        if not queue:
            self._making.pop(key, None)

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._memory -= kept.memory
            self._files -= kept.body.is_in_file

    def _make_room(self, tenant: str | None) -> bool:
        """Drop the body of a tenant, or of any, that was asked for the longest time ago; return whether there was."""
        key = next((key for key, kept in self._kept.items() if tenant in (None, kept.tenant)), None)
        if key is None:
            return False
        self._drop(key)
        return True


def _tag(key: str, body: StoredBody, cursor: str | None) -> str:
    """Of one caller's question and its answer: it is worth nothing to anybody else."""
    is_last = b"\0" if cursor is None else b"\1"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass") + is_last + body.digest)
    return f'W/"{digest.hexdigest()[:32]}"'


def _knows(request: Request, tag: str) -> bool:
    """Whether the client says that it has the body of this tag."""
    said = ",".join(request.headers.getlist("if-none-match"))
    known = {each.strip().removeprefix("W/") for each in said.split(",")}
    return "*" in known or tag.removeprefix("W/") in known
