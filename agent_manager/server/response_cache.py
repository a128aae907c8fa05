"""Response bodies: stored within a budget, cached, and sent at the pace of the client.

A response can be as large as a tenant's data, and clients need not read what they request. So the memory of the server
depends neither on the size of responses nor on their number:

1. A body is written piece by piece; a large one goes to an unnamed temporary file. All bodies together take at most
   :data:`MEMORY_BYTES` of memory.
   Bodies that an endpoint makes whole, such as pages of the console and files, join them before they are sent.
2. A body is sent in pieces of :data:`PIECE_BYTES`. The next piece is read from the file when the connection has taken
   the one before, so a client that does not read costs one piece and what asyncio buffers: less than 160 KiB.
3. All bodies, in memory and in files, count against one budget until they are neither cached nor being sent. A tenant
   may use half of it, so other tenants always find room.

The cache keeps a body with the *change token* of the data that it was made from
(:mod:`agent_manager.server.read_your_writes`), for one caller, one endpoint and its parameters. While the token is the
same, the body is served again; a client that sends its ETag as ``If-None-Match`` gets 304. Either costs one query for
the token. Parameters that the endpoint does not know are not part of the key.

For each key, one body is made at a time. Requests that arrive meanwhile share it if their token is the same; otherwise
they share the next one. So a client that polls while others write causes one body after the other, never several at
once. Large bodies, which may hold all data of a tenant, need one of :data:`MAX_LARGE` permits; the tenants take turns.

For a page of 500 messages (550 KB), the server takes 4 ms of CPU time from the cache, 3 ms for 304, and 19 ms
without. The manager's cache (:mod:`agent_manager.conversation_cache`) serves another purpose: it holds the state of
conversations for all callers, and each new event changes it a little. A body would have to be written from it again.

The token changes whenever anybody has written, but the ETag is a digest of the body, so it does not tell that others
are writing. For the same reason a cursor that holds a position is sealed anew for every response and is not part of the
ETag.
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
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from psycopg_pool import PoolTimeout
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_manager.auth import Identity
from agent_manager.server.limits import TENANT_SHARE, TimeSlice, WorkTurns
from agent_manager.server.problems import Busy, TooMany
from eventstore.concurrency import cancel_and_wait, run_in_thread
from eventstore.database.pools import FairQueue
from eventstore.errors import DiskFull, InputError

MEMORY_BYTES = 64 * 1024 * 1024
"""Bytes of all bodies in memory; further bodies go to files, however small they are."""
LARGE_BYTES = 256 * 1024
"""A larger body goes to a file, and a larger row is encoded in a thread."""
PIECE_BYTES = 64 * 1024
"""Bytes that are sent at a time."""
CACHED_BYTES = MEMORY_BYTES // 2
"""Memory of all cached bodies."""
CACHED_FILES = 64
"""Files of all cached bodies."""
MAX_LARGE = 4
"""Large bodies that are made at a time."""
_ENTRY_BYTES = 500
"""The approximate memory of a cache entry without its body."""

_T = TypeVar("_T")


class Frame(NamedTuple):
    """Bytes around a body that belong to one request, such as the id of a JSON-RPC call."""

    before: bytes = b""
    after: bytes = b""


class ResponseCache:
    """A cache of response bodies.

    Args:
        max_bytes: The budget of all bodies: cached, being made and being sent.
        seconds: The longest wait for the permit to make a large body.
        turns: Turns to write slices of bodies.

    Attributes:
        made: The number of bodies that were made.
    """

    def __init__(self, max_bytes: int, seconds: float, turns: WorkTurns) -> None:
        self.spool = Spool(max_bytes, self._evict, turns)
        self.made = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        """The least recently used first."""
        self._memory = 0
        self._files = 0
        self._builds: dict[str, list[_Build]] = {}
        """By key: the one that runs, and the next."""
        self._large, self._parsed = FairQueue(MAX_LARGE), FairQueue(1)
        self._seconds = seconds

    async def respond(
        self,
        request: Request,
        change_token: str,
        make: Make,
        *,
        identity: Identity,
        seal: Callable[[str], str],
        parameters: str,
        frame: Frame,
        is_large: bool,
    ) -> Response:
        """Return the response to a read, from the cache if its change token is still the same.

        Args:
            change_token: The state of the data that the response must hold.
            make: Writes the body.
            identity: The caller; only requests with the same user and scopes share the body.
            seal: Seals the cursor of the body for this response.
            parameters: The values of all parameters that the endpoint knows, apart from those of the path.
            is_large: Whether the body may be as large as the data of the tenant.

        Raises:
            InputError, TooMany, Busy: See :meth:`Spool.reserve`.
            Busy: Too many large bodies are being made.
        """
        caller = identity.caller
        endpoint = request.scope["route"].path, request.path_params  # of the matched route, which FastAPI puts there
        key = repr((caller.tenant, caller.user, sorted(identity.scopes), request.method, *endpoint, parameters))
        entry = self._entries.get(key)
        if entry is not None and entry.change_token == change_token:
            self._entries.move_to_end(key)
        else:
            entry = await self._build_shared(key, change_token, make, caller.tenant, is_large=is_large)
        headers = {"ETag": entry.tag, "Cache-Control": "private, no-cache"}
        if _matches(request, entry.tag):
            return Response(status_code=304, headers=headers)
        after = frame.after
        if entry.cursor is not None:
            after = b',"next":"' + seal(entry.cursor).encode() + b'"}' + after
        return BodyResponse(entry.body, frame.before, after, headers)

    async def stored(self, response: Response, tenant: str) -> Response:
        """Return a response that an endpoint has made whole, with its body on the tenant's part of the budget.

        Raises:
            InputError, TooMany, Busy: See :meth:`Spool.reserve`.
        """
        body = getattr(response, "body", b"")
        if len(body) <= PIECE_BYTES:
            return response
        out = BodyWriter(self.spool, tenant)
        try:
            for start in range(0, len(body), LARGE_BYTES):
                await out.write(body[start : start + LARGE_BYTES])
            stored = BodyResponse(await out.finish(), b"", b"", {})
        except BaseException:
            out.discard()
            raise
        stored.status_code, stored.raw_headers = response.status_code, response.raw_headers
        return stored

    def large(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Return the permit to make a response that may be as large as the data of a tenant.

        Raises:
            Busy: On entering; too many are being made.
        """
        return self._permit(self._large, tenant)

    def parsed(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Return the permit to have much data in parsed form at once, which one request at a time has.

        Raises:
            Busy: On entering; others have it for too long.
        """
        return self._permit(self._parsed, tenant)

    @asynccontextmanager
    async def _permit(self, queue: FairQueue, tenant: str) -> AsyncIterator[None]:
        try:
            async with queue.permit(tenant, self._seconds):
                yield
        except PoolTimeout:
            raise Busy("too many large responses are being made: repeat the request later", "large_responses") from None

    async def _build_shared(self, key: str, change_token: str, make: Make, tenant: str, *, is_large: bool) -> _Entry:
        """Make the body together with the other requests for it. It is given up when none of them waits any more."""
        builds = self._builds.setdefault(key, [])
        build = next((each for each in builds if each.change_token == change_token or not each.has_begun), None)
        if build is None:
            build = _Build(change_token, make)
            previous = builds[-1].task if builds else None
            build.task = asyncio.create_task(self._build(key, build, previous, tenant, is_large=is_large))
            build.task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may await it
            builds.append(build)
        elif not build.has_begun:
            build.change_token, build.make = change_token, make
        build.waiting += 1
        try:
            return await asyncio.shield(build.task)
        finally:
            build.waiting -= 1
            if not build.waiting and not build.task.done():
                self._forget(key, build)
                build.task.cancel()

    async def _build(
        self, key: str, build: _Build, previous: asyncio.Task[_Entry] | None, tenant: str, *, is_large: bool
    ) -> _Entry:
        try:
            if previous is not None:
                await asyncio.wait([previous])
            async with self.large(tenant) if is_large else nullcontext():
                build.has_begun = True
                return await self._make(key, build, tenant)
        finally:
            self._forget(key, build)

    async def _make(self, key: str, build: _Build, tenant: str) -> _Entry:
        change_token = build.change_token
        previous = self._entries.get(key)
        out = BodyWriter(self.spool, tenant, None if previous is None else (previous.body, previous.index))
        try:
            await build.make(out)
            body = await out.finish()
        except BaseException:
            out.discard()
            raise
        self.made += 1
        memory = _ENTRY_BYTES + len(key) + out.index_bytes + (0 if body.is_in_file else body.size)
        entry = _Entry(tenant, change_token, _tag(key, body, out.cursor), body, out.cursor, out.index, memory)
        self._remove(key)
        self._entries[key] = entry
        self._memory += entry.memory
        self._files += body.is_in_file
        while self._memory > CACHED_BYTES or self._files > CACHED_FILES:
            self._remove(next(iter(self._entries)))
        return entry

    def _forget(self, key: str, build: _Build) -> None:
        builds = self._builds.get(key, [])
        if build in builds:
            builds.remove(build)
        if not builds:
            self._builds.pop(key, None)

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._memory -= entry.memory
            self._files -= entry.body.is_in_file

    def _evict(self, tenant: str | None) -> bool:
        """Remove the least recently used body of a tenant, or of any; return whether there was one."""
        key = next((key for key, entry in self._entries.items() if tenant in (None, entry.tenant)), None)
        if key is None:
            return False
        self._remove(key)
        return True


class _Entry(NamedTuple):
    tenant: str
    change_token: str
    tag: str
    body: StoredBody
    cursor: str | None
    index: Any
    memory: int


@dataclass(eq=False)
class _Build:
    """A body that is being made, or will be when the one before is ready.

    Attributes:
        change_token: The state that the body holds at least. Until the build begins, that of the latest request.
        waiting: The number of requests that wait for the body.
    """

    change_token: str
    make: Make
    has_begun: bool = False
    waiting: int = 0
    task: asyncio.Task[_Entry] = field(init=False)


def _tag(key: str, body: StoredBody, cursor: str | None) -> str:
    """Return the ETag of a body. It holds the key, so the tags of two callers tell nothing about each other."""
    is_last = b"\0" if cursor is None else b"\1"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass") + is_last + body.digest)
    return f'W/"{digest.hexdigest()[:32]}"'


def _matches(request: Request, tag: str) -> bool:
    """Return whether the client names the ETag in ``If-None-Match``."""
    header = ",".join(request.headers.getlist("if-none-match"))
    tags = {each.strip().removeprefix("W/") for each in header.split(",")}
    return "*" in tags or tag.removeprefix("W/") in tags


class BodyWriter:
    """A body that is being written.

    Args:
        tenant: The tenant whose part of the budget it takes.
        previous: The body that was made last for the same key, and its index.

    Attributes:
        index: Data that helps to make the next body of the same key out of this one.
        index_bytes: The approximate memory of the index.
        cursor: The cursor of the next page, if it must be sealed for each response. Then the body ends before its
            member ``next``, and each response adds that and the closing brace.
    """

    def __init__(self, spool: Spool, tenant: str, previous: tuple[StoredBody, Any] | None = None) -> None:
        self._spool = spool
        self._tenant = tenant
        self._slice = TimeSlice(spool.turns, tenant)
        self.previous = previous
        self.index: Any = None
        self.index_bytes = 0
        self.cursor: str | None = None
        self._reset()

    def _reset(self) -> None:
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        self._in_file = 0
        self._file: int | None = None
        self._reserved = 0

    @property
    def size(self) -> int:
        """The number of bytes that were written."""
        return self._in_file + len(self._pending)

    async def write(self, text: bytes) -> None:
        """Append to the body; wait for the next turn if the time slice is over.

        Raises:
            InputError, TooMany, Busy: See :meth:`Spool.reserve`.
            DiskFull: The file system of temporary files is full.
        """
        self._spool.reserve(self._tenant, len(text), body_size=self.size + len(text))
        self._reserved += len(text)
        self._pending += text
        if len(self._pending) > LARGE_BYTES:
            await self._flush()
        await self._slice.give_way()

    async def write_items(self, items: Iterable[_T] | AsyncIterable[_T], encode: Callable[[_T], bytes]) -> None:
        """Append items with commas between them. A large row of a read table is encoded in a thread.

        It takes several times its size meanwhile, so one at a time is encoded.
        """
        separator = b""
        async for item in items if isinstance(items, AsyncIterable) else _iterate(items):
            if getattr(item, "size", 0) > LARGE_BYTES:
                async with self._spool.encoding:
                    await self.write(separator)
                    await self.write(await run_in_thread(encode, item))
            else:
                await self.write(separator + encode(item))
            separator = b","

    async def copy(self, body: StoredBody, start: int, end: int) -> None:
        """Append the bytes of another body from ``start`` to ``end``."""
        async for piece in body.pieces(start, end):
            await self.write(piece)

    def another(self) -> BodyWriter:
        """Return a writer for a body that becomes a part of this one."""
        return BodyWriter(self._spool, self._tenant)

    async def finish(self) -> StoredBody:
        """Return the body."""
        if self._file is not None or self._spool.in_memory + len(self._pending) > MEMORY_BYTES:
            await self._flush()
        memory = bytes(self._pending)
        self._digest.update(memory)
        body = StoredBody(self.size, self._digest.digest(), memory, self._file)
        self._spool.in_memory += len(memory)
        weakref.finalize(body, self._spool.release, self._tenant, self._reserved, len(memory), self._file)
        self._reset()
        return body

    def discard(self) -> None:
        """Discard what was written; the body may be written anew."""
        self._spool.release(self._tenant, self._reserved, 0, self._file)
        self._reset()

    async def _flush(self) -> None:
        text = bytes(self._pending)
        await run_in_thread(self._write_to_file, text)  # it may wait for the disk
        self._pending.clear()
        self._in_file += len(text)

    def _write_to_file(self, text: bytes) -> None:
        self._digest.update(text)
        try:
            if self._file is None:
                with tempfile.TemporaryFile(prefix="eventstore-", buffering=0) as file:
                    self._file = os.dup(file.fileno())
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


Make = Callable[[BodyWriter], Awaitable[None]]
"""A function that writes a body."""


class StoredBody:
    """A complete body, in memory or in a file.

    Attributes:
        size: The number of bytes.
        digest: Their SHA-256 digest.
    """

    def __init__(self, size: int, digest: bytes, memory: bytes, file: int | None) -> None:
        self.size = size
        self.digest = digest
        self._memory = memory
        self._file = file

    @property
    def is_in_file(self) -> bool:
        """True if the body is in a file."""
        return self._file is not None

    async def pieces(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from ``start`` to ``end``, at most :data:`PIECE_BYTES` at a time."""
        end = self.size if end is None else end
        for offset in range(start, end, PIECE_BYTES):
            length = min(PIECE_BYTES, end - offset)
            if self._file is None:
                yield self._memory[offset : offset + length]
            else:
                yield await run_in_thread(os.pread, self._file, length, offset)


class Spool:
    """The budget of all bodies of a server.

    Args:
        max_bytes: The budget; a tenant may use half of it.
        evict: Removes a cached body of a tenant, or of any tenant; returns whether there was one.
        turns: Turns to write slices of bodies.

    Attributes:
        used: Bytes of all bodies.
        in_memory: Bytes of the bodies in memory.
        encoding: Is held while a large row is encoded.
    """

    def __init__(self, max_bytes: int, evict: Callable[[str | None], bool], turns: WorkTurns) -> None:
        self.turns = turns
        self._max_bytes = max_bytes
        self._max_of_tenant = max_bytes // TENANT_SHARE
        self._evict = evict
        self._used_by: Counter[str] = Counter()
        self.used = 0
        self.in_memory = 0
        self.encoding = asyncio.Lock()

    def reserve(self, tenant: str, size: int, *, body_size: int) -> None:
        """Reserve bytes for a tenant's body.

        Args:
            body_size: The size of the whole body, including these bytes.

        Raises:
            InputError: The body alone is larger than a tenant's part.
            TooMany: The tenant's bodies take its part of the budget.
            Busy: All bodies together take the whole budget.
        """
        if body_size > self._max_of_tenant:
            raise InputError(
                f"the response takes more than {self._max_of_tenant:,} bytes: read it in pages (under /v1, with limit "
                "and after), or raise EVENTSTORE_RESPONSE_BYTES"
            )
        while self._used_by[tenant] + size > self._max_of_tenant:
            if not self._evict(tenant):
                raise TooMany(
                    f"your responses in progress take {self._max_of_tenant:,} bytes already: read them to their end "
                    "first, or raise EVENTSTORE_RESPONSE_BYTES",
                    "response_bytes",
                )
        while self.used + size > self._max_bytes:
            if not self._evict(None):
                raise Busy(
                    f"responses in progress take {self._max_bytes:,} bytes already: repeat the request later, or raise "
                    "EVENTSTORE_RESPONSE_BYTES",
                    "response_bytes",
                )
        self._used_by[tenant] += size
        self.used += size

    def release(self, tenant: str, size: int, memory: int, file: int | None) -> None:
        """Release the bytes of a body, and close its file."""
        if file is not None:
            os.close(file)
        self.in_memory -= memory
        self.used -= size
        self._used_by[tenant] -= size
        if not self._used_by[tenant]:
            del self._used_by[tenant]


class BodyResponse(Response):
    """A response that sends a stored body, the next piece when the connection has taken the one before.

    Args:
        before, after: Bytes around the body that belong to this response only.
    """

    def __init__(self, body: StoredBody, before: bytes, after: bytes, headers: Mapping[str, str]) -> None:
        length = len(before) + body.size + len(after)
        super().__init__(headers={**headers, "Content-Length": str(length)}, media_type="application/json")
        self._stored = body
        self._before = before
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; stop if the client disconnects."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if self._stored.size <= PIECE_BYTES:
            text = [piece async for piece in self._stored.pieces()]
            await send({"type": "http.response.body", "body": b"".join((self._before, *text, self._after))})
            return
        disconnected = asyncio.create_task(until_disconnected(receive))
        try:
            await send({"type": "http.response.body", "body": self._before, "more_body": True})
            async for piece in self._stored.pieces():
                if disconnected.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": self._after})
        finally:
            with suppress(asyncio.CancelledError):
                await cancel_and_wait([disconnected])


async def until_disconnected(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _iterate(items: Iterable[_T]) -> AsyncIterator[_T]:
    for item in items:
        yield item
