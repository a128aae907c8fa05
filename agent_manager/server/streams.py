"""Server-sent events.

A stream reads its conversation from the log itself, by version, so nothing is queued for a slow client: the next event
is read when the connection has taken the one before. A :class:`ChangeNotifier` says when to read again. The stream
registers with it before it reads. An event that the read does not see is committed later, and the notifier's
subscription, which stood at or before the end of the log when the stream registered, then comes to it.

The id of a server-sent event is its position. A client that was disconnected sends the last id that it received
(``Last-Event-ID``) and continues after it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager
from operator import attrgetter
from typing import cast
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_manager.server.lookups import HIGHEST_POSITION, end_of_log, resolve, visible_ids
from agent_manager.server.response_cache import until_disconnected
from agent_manager.server.schemas.events import event_out
from eventstore import Event, EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import InputError
from eventstore.read import in_batches
from projections import Reader

KEEP_ALIVE_SECONDS = 15.0
"""Pause after which a comment is sent, so that a broken connection is noticed and no proxy considers it idle."""
AUTHORIZATION_SECONDS = 1.0
"""Interval of the checks whether the client's token is still valid."""
HELD_BYTES = 64 * 1024
"""Bytes of events that are read ahead of the client; one larger event is held alone."""
_RETRY_MILLISECONDS = 1000


def start_position(request: Request, after: int | None) -> int | None:
    """Return the position after which a stream starts: that of ``Last-Event-ID``, otherwise ``after``.

    Raises:
        InputError: The header is not a position.
    """
    header = request.headers.get("last-event-id", "").strip()
    if not header:
        return after
    is_number = header.isascii() and header.isdigit() and len(header) <= len(str(HIGHEST_POSITION))
    if not is_number or int(header) > HIGHEST_POSITION:
        raise InputError(f"Last-Event-ID: {header!r:.40} is not a position: send the id of the last event received")
    return int(header)


async def conversation_events(
    reader: Reader, change_notifier: ChangeNotifier, conversation_id: UUID, after: int
) -> AsyncGenerator[Event, None]:
    """Yield the events of a conversation after a position, past and future, as long as the caller may see it."""

    def read(version: int, limit: int) -> AsyncIterator[Event]:
        caller = reader.caller
        return reader.store.read(conversation_id, after=version, limit=limit, tenant=caller.tenant, user=caller.user)

    await change_notifier.open()
    with change_notifier.changes(conversation_id) as changed:
        resolved = await resolve(reader, conversation_id, after)
        version = resolved.version if resolved is not None else 0
        while True:
            changed.clear()
            before = version
            async for event in in_batches(read, version, attrgetter("version"), HELD_BYTES):
                yield event
                version = event.version
            if version == before and not await visible_ids(reader, [conversation_id]):
                return
            await changed.wait()
            await change_notifier.open()


class ChangeNotifier:
    """One subscription to the log of a tenant that notifies all its streams of single conversations."""

    def __init__(self, store: EventStore, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._waiters: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._subscription: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Subscribe at the end of the log, unless the subscription runs already."""
        async with self._opening:
            if self._subscription is None or self._subscription.done():
                position = await end_of_log(self._store)
                self._subscription = asyncio.create_task(self._notify(position))

    @contextmanager
    def changes(self, conversation_id: UUID) -> Iterator[asyncio.Event]:
        """Return an event that is set whenever the conversation changes, until the end of the block."""
        changed = asyncio.Event()
        self._waiters[conversation_id].add(changed)
        try:
            yield changed
        finally:
            waiters = self._waiters[conversation_id]
            waiters.discard(changed)
            if not waiters:
                del self._waiters[conversation_id]

    async def close(self) -> None:
        """End the subscription."""
        if self._subscription is not None:
            await cancel_and_wait([self._subscription])
            self._subscription = None

    async def _notify(self, position: int) -> None:
        try:
            async for event in self._store.subscribe(after=position, tenant=self._tenant):
                for changed in self._waiters.get(event.conversation_id, ()):
                    changed.set()
        finally:
            # If the subscription fails, the streams read for themselves: they meet the same error, or subscribe anew.
            for waiters in self._waiters.values():
                for changed in waiters:
                    changed.set()


class EventStream(Response):
    """A response that sends events until the client disconnects, loses its authorization, or the server closes.

    Args:
        after: The position where the stream starts. It is sent as the first id, so that a client that reconnects before
            the first event misses nothing.
        closing: Is set when the server closes.
        stream_limit: The stream's place among the streams; it is taken in exchange for that of an ordinary request.
        is_authorized: Returns whether the client may still receive events.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[Event],
        after: int,
        *,
        closing: asyncio.Event,
        stream_limit: AbstractContextManager[None],
        is_authorized: Callable[[], Awaitable[bool]],
    ) -> None:
        # Neither caches nor proxies may store or delay events; the last header is nginx's.
        super().__init__(headers={"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._after = after
        self._closing = closing
        self._stream_limit = stream_limit
        self._is_authorized = is_authorized
        self._last_sent = time.monotonic()
        self._sending = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response.

        Raises:
            TooMany, Busy: There are too many streams.
        """
        with self._stream_limit:
            request_limit: ExitStack = Request(scope).state.places
            request_limit.close()
            await self._respond(receive, send)

    async def _respond(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        tasks = [
            asyncio.create_task(work)
            for work in (
                self._send_events(send),
                self._keep_alive(send),
                self._until_unauthorized(),
                self._until_closing(),
                until_disconnected(receive),
            )
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(tasks)
        for task in tasks:
            if not task.cancelled() and (failure := task.exception()) is not None:
                raise failure
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        await self._send(send, b"retry: %d\nid: %d\n\n" % (_RETRY_MILLISECONDS, self._after))
        async with aclosing(cast(AsyncGenerator[Event, None], self._events)) as events:
            async for event in events:
                await self._send(send, encode_event(event))

    async def _keep_alive(self, send: Send) -> None:
        while True:
            pause = time.monotonic() - self._last_sent
            if pause >= KEEP_ALIVE_SECONDS:
                await self._send(send, b": still here\n\n")
            else:
                await asyncio.sleep(KEEP_ALIVE_SECONDS - pause)

    async def _until_unauthorized(self) -> None:
        while await self._is_authorized():  # noqa: ASYNC110 - nothing notifies when a key is revoked or a token expires
            await asyncio.sleep(AUTHORIZATION_SECONDS)

    async def _until_closing(self) -> None:
        await self._closing.wait()

    async def _send(self, send: Send, text: bytes) -> None:
        async with self._sending:
            await send({"type": "http.response.body", "body": text, "more_body": True})
        self._last_sent = time.monotonic()


def encode_event(event: Event) -> bytes:
    """Return an event as a server-sent event. JSON escapes the line breaks of its data."""
    name = event.event_type.replace("\n", " ").replace("\r", " ")
    data = event_out(event).model_dump_json()
    return f"id: {event.position}\nevent: {name}\ndata: {data}\n\n".encode()
