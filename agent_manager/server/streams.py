"""Server-sent events.

The streams of one caller that request the same events share one reader, which encodes each event once
(:class:`SharedEvents`), so hundreds of streams cost little more than one. The most recently encoded events are kept in
memory. A stream that is further behind, because it starts earlier or its client is slow, reads for itself what was
dropped. Nothing is queued for a slow client: its next events are taken when the connection has taken the ones before.
When events of the tenant are erased, all that are in memory are dropped.

No event is missed between the two: the shared reader starts at the end of the log, and every event after that position
is either in memory or at most at ``dropped_until``, up to which the log is final, and up to which a stream reads.

The reader of a conversation reads by version. It registers with :class:`ChangeNotifier` before it reads. An event that
the read does not see is committed later, and the notifier's subscription, which stood at or before the end of the log
when the reader registered, then comes to it.

The id of a server-sent event is its position. A client that was disconnected sends the last id that it received
(``Last-Event-ID``) and continues after it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import cast
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_manager.server.conversation_lookup import resolve, visible_ids
from agent_manager.server.limits import TimeSlice, WorkTurns
from agent_manager.server.response_cache import until_disconnected
from agent_manager.server.schemas.events import event_out
from eventstore import Caller, Event, EventStore
from eventstore.concurrency import cancel_and_wait, independent_task
from eventstore.errors import InputError
from eventstore.event_types import RECEIPTS
from eventstore.events import HIGHEST_POSITION
from eventstore.json_text import LINE_SEPARATORS, escape_line_separators
from eventstore.read import end_of_log, in_batches
from projections import Reader

KEEP_ALIVE_SECONDS = 15.0
"""Pause after which a comment is sent, so that a broken connection is noticed and no proxy considers it idle."""
AUTHORIZATION_SECONDS = 1.0
"""Interval of the checks whether the client's token is still valid."""
HELD_BYTES = 64 * 1024
"""Bytes of events that are held in memory for streams; one larger event is held alone."""
SEND_BYTES = 32 * 1024
"""The approximate size up to which events are sent together."""
LAG_SECONDS = 0.1
"""The time that the shared reader waits for streams to take the events that it is about to drop from memory."""
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


@dataclass(frozen=True)
class EventSource:
    """The events that a stream requests.

    Attributes:
        key: Equal for sources of the same events, for the same caller.
        follow: Yields the events after a position, past and future.
        read: Yields the events after a position and up to another, up to which the log is final.
    """

    key: Hashable
    follow: Callable[[int], AsyncGenerator[Event, None]]
    read: Callable[[int, int], AsyncGenerator[Event, None]]


def log_source(store: EventStore, caller: Caller, types: Sequence[str] | None, actor: str | None) -> EventSource:
    """Return the source of the events of all conversations that a caller may see."""
    tenant, user = caller.tenant, caller.user

    def follow(after: int) -> AsyncGenerator[Event, None]:
        events = store.subscribe(after=after, types=types, actor=actor, tenant=tenant, user=user, held_bytes=HELD_BYTES)
        return cast(AsyncGenerator[Event, None], events)

    def read(after: int, until: int) -> AsyncGenerator[Event, None]:
        def batch(after: int, limit: int) -> AsyncIterator[Event]:
            return store.read_log(
                after=after, until_position=until, limit=limit, types=types, actor=actor, tenant=tenant, user=user
            )

        return in_batches(batch, after, attrgetter("position"), HELD_BYTES)

    return EventSource((caller, None if types is None else tuple(types), actor), follow, read)


def conversation_source(reader: Reader, change_notifier: ChangeNotifier, conversation_id: UUID) -> EventSource:
    """Return the source of the events of a conversation, as long as the reader's caller may see it."""
    caller = reader.caller

    def batch(version: int, limit: int) -> AsyncIterator[Event]:
        return reader.store.read(conversation_id, after=version, limit=limit, tenant=caller.tenant, user=caller.user)

    async def version_at(position: int) -> int:
        resolved = await resolve(reader, conversation_id, position)
        return 0 if resolved is None else resolved.version

    async def follow(after: int) -> AsyncGenerator[Event, None]:
        await change_notifier.open()
        with change_notifier.changes(conversation_id) as changed:
            version = await version_at(after)
            while True:
                changed.clear()
                before = version
                async for event in in_batches(batch, version, attrgetter("version"), HELD_BYTES):
                    yield event
                    version = event.version
                if version == before and not await visible_ids(reader, [conversation_id]):
                    return
                await changed.wait()
                await change_notifier.open()

    async def read(after: int, until: int) -> AsyncGenerator[Event, None]:
        async for event in in_batches(batch, await version_at(after), attrgetter("version"), HELD_BYTES):
            if event.position > until:
                return
            yield event

    return EventSource((caller, conversation_id), follow, read)


class ChangeNotifier:
    """One subscription to the log of a tenant that notifies all readers of single conversations."""

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
                position = await end_of_log(self._store.log(self._store.caller(self._tenant)))
                self._subscription = independent_task(self._notify(position))

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
            # If the subscription fails, the readers read for themselves: they get the same error, or subscribe anew.
            for waiters in self._waiters.values():
                for changed in waiters:
                    changed.set()


class SharedStreams:
    """The shared events of all streams of a server, by source."""

    def __init__(self, store: EventStore, turns: WorkTurns) -> None:
        self._store = store
        self._turns = turns
        self._shared: dict[Hashable, SharedEvents] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}

    async def follow(self, source: EventSource, tenant: str, after: int) -> AsyncGenerator[bytes, None]:
        """Yield the encoded events of a source after a position, past and future, several at a time."""
        if self._running(source) is None:
            position = await end_of_log(self._store.log(self._store.caller(tenant)))
            if self._running(source) is None:  # still
                self._shared[source.key] = SharedEvents(source, position, TimeSlice(self._turns, tenant))
                if tenant not in self._watching or self._watching[tenant].done():
                    self._watching[tenant] = independent_task(self._drop_erased(tenant, position))
        shared = self._shared[source.key]
        try:
            async with aclosing(shared.follow(source, after)) as texts:
                async for text in texts:
                    yield text
        finally:
            if shared.is_idle:
                if self._shared.get(source.key) is shared:
                    del self._shared[source.key]
                await shared.close()
                if not any(each.tenant == tenant for each in self._shared.values()) and tenant in self._watching:
                    await cancel_and_wait([self._watching.pop(tenant)])

    async def _drop_erased(self, tenant: str, position: int) -> None:
        """Drop what is in memory whenever events of a tenant are erased."""
        async for _ in self._store.subscribe(after=position, types=RECEIPTS, tenant=tenant):
            for shared in self._shared.values():
                if shared.tenant == tenant:
                    shared.drop_all()

    def _running(self, source: EventSource) -> SharedEvents | None:
        shared = self._shared.get(source.key)
        return None if shared is None or shared.has_ended else shared


class SharedEvents:
    """The events of one source, read and encoded once for all its streams.

    Args:
        position: The position after which to read; the log is final up to it.

    Attributes:
        dropped_until: Every event of the source after this position that was read is in memory.
    """

    def __init__(self, source: EventSource, position: int, time_slice: TimeSlice) -> None:
        self.dropped_until = position
        self.tenant = time_slice.tenant
        self._time_slice = time_slice
        self._texts: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._positions: dict[object, int] = {}
        """The positions up to which the streams have taken events."""
        self._awaited: set[object] = set()
        """The streams that have not taken the event that is about to be dropped."""
        self._taken = asyncio.Event()
        self._reading = independent_task(self._read(source), name="eventstore-stream")
        self._reading.add_done_callback(self._end)

    @property
    def has_ended(self) -> bool:
        """True if there will be no more events."""
        return self._reading.done()

    @property
    def is_idle(self) -> bool:
        """True if no stream follows the events."""
        return not self._positions

    async def close(self) -> None:
        """Stop reading."""
        await cancel_and_wait([self._reading])
        self._texts.clear()  # the task, which ended with an error, refers to this object

    def drop_all(self) -> None:
        """Drop all events from memory: streams that have not taken them read them again."""
        if self._texts:
            self.dropped_until = self._texts[-1][0]
            self._texts.clear()
            self._bytes = 0
            self._changed.set()
            self._changed = asyncio.Event()

    async def follow(self, source: EventSource, after: int) -> AsyncGenerator[bytes, None]:
        """Yield the encoded events after a position, several at a time; end, or fail, when the source does."""
        position = after
        stream = object()
        self._positions[stream] = position
        try:
            while True:
                while position < self.dropped_until:
                    until = self.dropped_until
                    async with aclosing(self._read_dropped(source, position, until)) as texts:
                        async for text in texts:
                            yield text
                    position = self._advance(stream, until)
                await self._time_slice.give_way()  # one event wakes all streams at once
                if position < self.dropped_until:
                    continue
                changed = self._changed
                found: list[bytes] = []
                size = 0
                for event_position, text in self._texts:
                    if event_position > position:
                        found.append(text)
                        position = event_position
                        size += len(text)
                        if size > SEND_BYTES:
                            break
                if found:
                    yield b"".join(found)
                    self._advance(stream, position)
                elif self.has_ended:
                    await self._reading  # raises its error
                    return
                else:
                    await changed.wait()
        finally:
            del self._positions[stream]
            self._discard(stream)

    async def _read_dropped(self, source: EventSource, after: int, until: int) -> AsyncGenerator[bytes, None]:
        found: list[bytes] = []
        size = 0
        async with aclosing(source.read(after, until)) as events:
            async for event in events:
                await self._time_slice.give_way()
                found.append(encode_event(event))
                size += len(found[-1])
                if size > SEND_BYTES:
                    yield b"".join(found)
                    found, size = [], 0
        if found:
            yield b"".join(found)

    async def _read(self, source: EventSource) -> None:
        async with aclosing(source.follow(self.dropped_until)) as events:
            async for event in events:
                await self._time_slice.give_way()
                text = encode_event(event)
                while self._texts and self._bytes + len(text) > HELD_BYTES:
                    await self._drop_oldest()
                self._texts.append((event.position, text))
                self._bytes += len(text)
                self._changed.set()
                self._changed = asyncio.Event()

    async def _drop_oldest(self) -> None:
        position, text = self._texts[0]
        self._taken.clear()
        self._awaited = {stream for stream, taken in self._positions.items() if self.dropped_until <= taken < position}
        if self._awaited:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAG_SECONDS):
                    await self._taken.wait()
        if self._texts and self._texts[0][0] == position:  # unless all were dropped meanwhile
            self._texts.popleft()
            self._bytes -= len(text)
            self.dropped_until = position

    def _end(self, reading: asyncio.Task[None]) -> None:
        self._changed.set()
        if not reading.cancelled():
            reading.exception()  # the streams raise it, if there are any

    def _advance(self, stream: object, position: int) -> int:
        self._positions[stream] = position
        self._discard(stream)
        return position

    def _discard(self, stream: object) -> None:
        self._awaited.discard(stream)
        if not self._awaited:
            self._taken.set()


class EventStream(Response):
    """A response that sends events until the client disconnects, loses its authorization, or the server closes.

    Args:
        texts: The encoded events.
        after: The position where the stream starts. It is sent as the first id, so that a client that reconnects before
            the first event misses nothing.
        closing: Is set when the server closes.
        stream_limit: The stream's place among the streams; it is taken in exchange for that of an ordinary request.
        is_authorized: Returns whether the client may still receive events.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        texts: AsyncGenerator[bytes, None],
        after: int,
        *,
        closing: asyncio.Event,
        stream_limit: AbstractContextManager[None],
        is_authorized: Callable[[], Awaitable[bool]],
    ) -> None:
        # Neither caches nor proxies may store or delay events; the last header is nginx's.
        super().__init__(headers={"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._texts = texts
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
            request_limit: ExitStack = Request(scope).state.request_limit
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
                self._closing.wait(),
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
        async with aclosing(self._texts) as texts:
            async for text in texts:
                await self._send(send, text)

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

    async def _send(self, send: Send, text: bytes) -> None:
        async with self._sending:
            await send({"type": "http.response.body", "body": text, "more_body": True})
        self._last_sent = time.monotonic()


async def encoded(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """Yield events as server-sent events, one at a time."""
    async with aclosing(events):
        async for event in events:
            yield encode_event(event)


def encode_event(event: Event) -> bytes:
    """Return an event as a server-sent event, of three lines also for clients that know more separators than SSE."""
    name = "".join(" " if character in LINE_SEPARATORS else character for character in event.event_type)
    data = escape_line_separators(event_out(event).model_dump_json().encode())
    return f"id: {event.position}\nevent: {name}\ndata: ".encode() + data + b"\n\n"
