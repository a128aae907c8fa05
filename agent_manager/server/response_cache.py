"""Responses: stored within a budget, cached, sent at the pace of the client.

An answer can be as large as a tenant's data, and a client need not read what it asked for. So the memory of the server
must depend neither on how large answers are nor on how many of them are under way:

1. A body is written piece by piece while it is made, and a large one goes to a temporary file that has no name. Of all
   bodies together at most :data:`MEMORY_BYTES` are in memory.
2. A body is sent in pieces of :data:`PIECE_BYTES`; a piece is read from the file only when the connection has taken the
   one before. So a client that does not read holds one piece, beside what asyncio buffers: less than 160 KiB.
3. All bodies, in memory and in files, count against one budget from when they are made until nobody sends or caches
   them any more. A tenant may use half of it, so that another tenant always finds room.

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
import errno
import hashlib
import os
import tempfile
import weakref
from collections import Counter, OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple, TypeVar

from psycopg_pool import PoolTimeout
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_manager.auth import Identity
from agent_manager.server.errors import Busy, TooMany
from agent_manager.server.limits import TENANT_SHARE, TimeSlice, WorkTurns
from eventstore.concurrency import cancel_and_wait
from eventstore.database.pools import FairQueue
from eventstore.errors import DiskFull, InputError

# Bodies of answers: stored within a budget of bytes, and sent at the pace of those who read them

MEMORY_BYTES = 64 * 1024 * 1024
"""Of bodies that are in memory; those beyond it are in files, however small they are."""
LARGE_BYTES = 256 * 1024
"""A body beyond this is in a file."""
PIECE_BYTES = 64 * 1024
"""Sent at a time."""

_T = TypeVar("_T")


class StoredBody:
    """A body that is complete.

    Attributes:
        size: in bytes.
        digest: SHA-256 of the bytes.
    """

    def __init__(self, size: int, digest: bytes, memory: bytes, file: int | None) -> None:
        self.size = size
        self.digest = digest
        self._memory = memory
        self._file = file

    @property
    def is_in_file(self) -> bool:
        """Whether it is in a file, not in memory."""
        return self._file is not None

    async def pieces(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of the body from one place to another, at most :data:`PIECE_BYTES` at a time."""
        end = self.size if end is None else end
        for place in range(start, end, PIECE_BYTES):
            length = min(PIECE_BYTES, end - place)
            if self._file is None:
                yield self._memory[place : place + length]
            else:
                yield await _in_thread(os.pread, self._file, length, place)


class Spool:
    """All bodies of one server.

    Args:
        max_bytes: of all bodies together; half of it for one tenant.
        make_room: drops a body that is cached, if there is one: of the tenant that is named, or of any.
        turns: to write slices of bodies.

    Attributes:
        used: bytes of all bodies.
        in_memory: of these, in memory.
    """

    def __init__(self, max_bytes: int, make_room: Callable[[str | None], bool], turns: WorkTurns) -> None:
        self.turns = turns
        self._max_bytes = max_bytes
        self._of_tenant = max_bytes // TENANT_SHARE
        self._make_room = make_room
        self._used_by: Counter[str] = Counter()
        self.used = 0
        self.in_memory = 0

    def reserve(self, tenant: str, size: int, *, body_size: int) -> None:
        """Count bytes of a tenant's body.

        Args:
            body_size: of the whole body, with these bytes.

        Raises:
            InputError: the body alone is larger than a tenant's part.
            TooMany: the tenant's bodies take its part of the budget.
            Busy: all bodies together take the whole budget.
        """
        if body_size > self._of_tenant:
            raise InputError(
                f"the answer takes more than {self._of_tenant:,} bytes: read it in pages (under /v1, with limit and "
                "after), or raise EVENTSTORE_ANSWER_BYTES"
            )
        while self._used_by[tenant] + size > self._of_tenant:
            if not self._make_room(tenant):
                raise TooMany(
                    f"your answers under way take {self._of_tenant:,} bytes already: read them to their end first, or "
                    "raise EVENTSTORE_ANSWER_BYTES",
                    "answer bytes",
                )
        while self.used + size > self._max_bytes:
            if not self._make_room(None):
                raise Busy(
                    f"answers under way take {self._max_bytes:,} bytes already: come again, or raise "
                    "EVENTSTORE_ANSWER_BYTES",
                    "answer bytes",
                )
        self._used_by[tenant] += size
        self.used += size

    def release(self, tenant: str, size: int, in_memory: int, file: int | None) -> None:
        """Count a body no longer."""
        if file is not None:
            os.close(file)
        self.used -= size
        self.in_memory -= in_memory
        self._used_by[tenant] -= size
        if not self._used_by[tenant]:
            del self._used_by[tenant]


class BodyWriter:
    """A body that is being made.

    Args:
        tenant: whose budget it takes.
        previous: the body that was made last for the same question, and its index.

    Attributes:
        index: what helps to make the next body of the same question out of this one: nobody else reads it.
        index_bytes: about what it takes in memory.
        cursor: of the next page, if it must be sealed anew for each answer. Then the body ends before its member
            ``next``, and each answer adds that and the closing brace.
    """

    def __init__(self, spool: Spool, tenant: str, previous: tuple[StoredBody, Any] | None = None) -> None:
        self._spool = spool
        self._tenant = tenant
        self._begin()
        self._slice = TimeSlice(spool.turns, tenant)
        self.previous = previous
        self.index: Any = None
        self.index_bytes = 0
        self.cursor: str | None = None

    def _begin(self) -> None:
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        self._in_file = 0
        self._file: int | None = None
        self._reserved = 0

    @property
    def size(self) -> int:
        """Bytes that were written so far."""
        return self._in_file + len(self._pending)

    async def write(self, text: bytes) -> None:
        """Add to the body.

        Raises:
            InputError, TooMany, Busy: see :meth:`Spool.reserve`.
            DiskFull: there is no room for temporary files.
        """
        self._spool.reserve(self._tenant, len(text), body_size=self.size + len(text))
        self._reserved += len(text)
        self._pending += text
        if len(self._pending) > LARGE_BYTES:
            await self._flush()
        await self._slice.give_way()

    async def copy(self, body: StoredBody, start: int, end: int) -> None:
        """Add the bytes of another body from one place to another."""
        async for piece in body.pieces(start, end):
            await self.write(piece)

    def another(self) -> BodyWriter:
        """Return a writer of a body that this one is made of."""
        return BodyWriter(self._spool, self._tenant)

    async def write_items(self, items: Iterable[_T], encode: Callable[[_T], bytes]) -> None:
        """Add the items of a list, encoded one by one, with commas between them."""
        separator = b""
        for item in items:
            await self.write(separator + encode(item))
            separator = b","

    async def write_rows(self, rows: AsyncIterable[_T], encode: Callable[[_T], bytes]) -> None:
        """Add rows as :meth:`write_items` does, as they are read. A large row is encoded in a thread."""
        separator = b""
        async for row in rows:
            text = await _in_thread(encode, row) if getattr(row, "size", 0) > LARGE_BYTES else encode(row)
            await self.write(separator + text)
            separator = b","

    async def finish(self) -> StoredBody:
        """Return the body."""
        if self._file is not None or self._spool.in_memory + len(self._pending) > MEMORY_BYTES:
            await self._flush()
        memory = bytes(self._pending)
        self._digest.update(memory)
        body = StoredBody(self.size, self._digest.digest(), memory, self._file)
        self._spool.in_memory += len(memory)
        weakref.finalize(body, self._spool.release, self._tenant, self._reserved, len(memory), self._file)
        self._begin()
        return body

    def discard(self) -> None:
        """Give up what was written, so that the body may be written anew."""
        self._spool.release(self._tenant, self._reserved, 0, self._file)
        self._begin()

    async def _flush(self) -> None:
        text = bytes(self._pending)
        # In a thread: it may wait for the disk, and neither lets others wait.
        await _in_thread(self._to_file, text)
        self._pending.clear()
        self._in_file += len(text)

    def _to_file(self, text: bytes) -> None:
        self._digest.update(text)
        try:
            if self._file is None:
                self._file = _open_unnamed()
            view = memoryview(text)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE):
                raise
            raise DiskFull(
                f"the server's folder for temporary files ({tempfile.gettempdir()}): {os.strerror(error.errno)}: "
                "free space there, or name another in TMPDIR"
            ) from None


async def _in_thread(work: Callable[..., _T], *given: object) -> _T:
    """Run a function in a thread. Even if the caller is cancelled, it has ended on return: its file is still open."""
    running = asyncio.get_running_loop().run_in_executor(None, work, *given)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


def _open_unnamed() -> int:
    with tempfile.TemporaryFile(prefix="eventstore-", buffering=0) as file:
        return os.dup(file.fileno())


class BodyResponse(Response):
    """An answer whose body is sent piece by piece, the next when the connection has taken the one before.

    Args:
        before, after: stand around the body, and are of this request alone.
    """

    def __init__(self, body: StoredBody, before: bytes, after: bytes, headers: Mapping[str, str]) -> None:
        length = len(before) + body.size + len(after)
        super().__init__(headers={**headers, "Content-Length": str(length)}, media_type="application/json")
        self._stored = body
        self._before = before
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, until its end or until the client has left."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if self._stored.size <= PIECE_BYTES:
            text = [piece async for piece in self._stored.pieces()]
            await send({"type": "http.response.body", "body": b"".join((self._before, *text, self._after))})
            return
        left = asyncio.create_task(_disconnected(receive))
        try:
            await send({"type": "http.response.body", "body": self._before, "more_body": True})
            async for piece in self._stored.pieces():
                if left.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": self._after})
        finally:
            with suppress(asyncio.CancelledError):
                await cancel_and_wait([left])


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# Answers that are made once and given again until something has changed: what makes polling cheap

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
    change_token: str
    tag: str
    body: StoredBody
    cursor: str | None
    index: Any
    memory: int


class _Making:
    """A body that is being made, or will be.

    Attributes:
        change_token: of what it holds at least. Until it has begun, that of the latest request for it.
        waiting: requests that wait for it; when there is none, nobody makes it.
    """

    def __init__(self, change_token: str, make: Make) -> None:
        self.change_token = change_token
        self.make = make
        self.has_begun = False
        self.waiting = 0
        self.task: asyncio.Task[_Kept]


class ResponseCache:
    """The bodies that were made last.

    Args:
        max_bytes: of all bodies, those included that are being made or sent.
        seconds: to wait for a permit at most.
        turns: to write slices of bodies.

    Attributes:
        made: how many bodies were made, not served from here.
    """

    def __init__(self, max_bytes: int, seconds: float, turns: WorkTurns) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._memory = 0
        self._files = 0
        self._making: dict[str, list[_Making]] = {}
        self._large = FairQueue(LARGE_AT_A_TIME)
        self._seconds = seconds
        self.spool = Spool(max_bytes, self._make_room, turns)
        self.made = 0

    async def answer(
        self,
        request: Request,
        change_token: str,
        make: Make,
        *,
        scope: Identity,
        seal: Seal,
        asked: str = "",
        frame: Frame = NO_FRAME,
        is_large: bool = False,
    ) -> Response:
        """The answer to a request for what the mark stands for.

        Args:
            scope: on whose behalf it is made; nobody else is given it, nor the same caller with other scopes.
            seal: seals the cursor of the body.
            asked: what is asked of the endpoint: the values of all that it knows.
            frame: stands around the body, and is of this request alone.
            make: makes the body; is not called where it is here already.
            is_large: whether the answer may be as large as what the tenant has.

        Raises:
            InputError, TooMany, Busy: see :meth:`~agent_manager.server.response_cache.Spool.reserve`.
        """
        caller = scope.caller
        endpoint = request.scope["route"].path
        key = repr((caller.tenant, caller.user, sorted(scope.scopes), request.method, endpoint, asked))
        kept = self._kept.get(key)
        if kept is None or kept.change_token != change_token:
            kept = await self._shared(key, change_token, make, caller.tenant, is_large=is_large)
        elif key in self._kept:
            self._kept.move_to_end(key)
        headers = {"ETag": kept.tag, "Cache-Control": "private, no-cache"}
        if _knows(request, kept.tag):
            return Response(status_code=304, headers=headers)
        after = frame.after
        if kept.cursor is not None:
            after = b',"next":"' + seal(kept.cursor).encode() + b'"}' + after
        return BodyResponse(kept.body, frame.before, after, headers)

    async def _shared(self, key: str, change_token: str, make: Make, tenant: str, *, is_large: bool) -> _Kept:
        """The body, made for all who ask for it meanwhile. Whoever stops waiting ends it for nobody else."""
        queue = self._making.setdefault(key, [])
        making = next((each for each in queue if each.change_token == change_token or not each.has_begun), None)
        if making is None:
            making = _Making(change_token, make)
            before = queue[-1].task if queue else None
            making.task = asyncio.create_task(self._make(key, making, before, tenant, is_large=is_large))
            making.task.add_done_callback(lambda done: done.cancelled() or done.exception())
            queue.append(making)
        elif not making.has_begun:
            making.change_token, making.make = change_token, make
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
        change_token = making.change_token
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
        kept = _Kept(tenant, change_token, _tag(key, body, out.cursor), body, out.cursor, out.index, memory)
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
