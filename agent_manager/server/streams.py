"""Server-sent events.

The streams of one caller that ask for the same events share one reader, which encodes each event once
(:class:`SharedEvents`): hundreds of streams cost little more than one. The encoded events that were read last are kept
in memory; a stream that is further behind, because it begins earlier or its client is slow, reads for itself what was
dropped. Nothing is queued for a slow client: its next event is taken once the connection has taken the one before.

No event is missed between the two: the shared reader begins at the end of the log, and everything beyond that position
is either in memory or at most at ``dropped_until``, up to which the log is final, and which a stream reads up to.

The reader of a conversation reads by version. It registers with :class:`ChangeNotifier` before it reads: an event that
the read does not see is committed later, and the subscription, which stood at or before the end of the log when the
reader registered, comes to it then.

A client that was cut off sends the last id that it saw (Last-Event-ID) and gets what comes after it.
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

from agent_manager.server.limits import TimeSlice, WorkTurns
from agent_manager.server.lookups import HIGHEST_POSITION, end_of_log, resolve, visible_ids
from agent_manager.server.schemas.events import event_out
from eventstore import Caller, Event, EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import InputError
from eventstore.read import in_batches
from projections import Reader

# One subscription for all streams of single conversations: it tells a stream that its conversation has changed


class ChangeNotifier:
    """Watches the log of one tenant while anybody is registered."""

    def __init__(self, store: EventStore, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._waiting: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._watching: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Begins to watch, unless it does so already."""
        async with self._opening:
            if self._watching is None or self._watching.done():
                position = await end_of_log(self._store)
                self._watching = asyncio.create_task(self._watch(position))

    @contextmanager
    def changes(self, conversation_id: UUID) -> Iterator[asyncio.Event]:
        """Is set whenever the conversation has changed, until the end of the block."""
        changed = asyncio.Event()
        self._waiting[conversation_id].add(changed)
        try:
            yield changed
        finally:
            waiting = self._waiting[conversation_id]
            waiting.discard(changed)
            if not waiting:
                del self._waiting[conversation_id]

    async def close(self) -> None:
        """Watches no longer."""
        if self._watching is not None:
            await cancel_and_wait([self._watching])
            self._watching = None

    async def _watch(self, position: int) -> None:
        try:
            async for event in self._store.subscribe(after=position, tenant=self._tenant):
                for changed in self._waiting.get(event.conversation_id, ()):
                    changed.set()
        finally:
            # Should it fail, those who wait look for themselves, and meet the error or open it anew.
            for changes in self._waiting.values():
                for changed in changes:
                    changed.set()


# Server-sent events: an endless answer that says each event with its position as its id

KEEP_ALIVE_SECONDS = 15.0
"""Of silence, after which a comment is sent: so a broken connection is noticed, and no proxy takes it for idle."""
LOOK_SECONDS = 1.0
"""How long who listens may go on once their token is worth nothing."""
HELD_BYTES = 64 * 1024
"""Of events that were read for a stream and that its client has not taken yet, unless a single one takes more."""
SEND_BYTES = 32 * 1024
"""Events are sent together, up to about so much."""
LAG_SECONDS = 0.1
"""So long the shared reader waits for streams to take the events that it is about to drop from memory."""
_RETRY_MILLISECONDS = 1000
_MOST_DIGITS = len(str(HIGHEST_POSITION))


def resumed_after(request: Request, asked: int | None) -> int | None:
    """The position after which a stream begins: that of ``Last-Event-ID``, else the one asked for.

    Raises:
        InputError: the header holds no position.
    """
    said = request.headers.get("last-event-id", "").strip()
    if not said:
        return asked
    if not (said.isascii() and said.isdigit() and len(said) <= _MOST_DIGITS and int(said) <= HIGHEST_POSITION):
        raise InputError(f"Last-Event-ID: {said!r:.40} is no position: send the id of the last event that came")
    return int(said)


@dataclass(frozen=True)
class EventSource:
    """The events that a stream asks for.

    Attributes:
        key: equal for sources of the same events, for the same caller.
        follow: the events beyond a position, those to come included.
        read: the events beyond a position and up to another, up to which the log is final.
    """

    key: Hashable
    follow: Callable[[int], AsyncGenerator[Event, None]]
    read: Callable[[int, int], AsyncGenerator[Event, None]]


def log_source(store: EventStore, caller: Caller, types: Sequence[str] | None, actor: str | None) -> EventSource:
    """The events of all conversations that a caller may see."""
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
    """The events of a conversation."""
    caller = reader.caller

    def batch(version: int, limit: int) -> AsyncIterator[Event]:
        return reader.store.read(conversation_id, after=version, limit=limit, tenant=caller.tenant, user=caller.user)

    async def version_at(position: int) -> int:
        found = await resolve(reader, conversation_id, position)
        return 0 if found is None else found.version

    async def follow(after: int) -> AsyncGenerator[Event, None]:
        await change_notifier.open()
        with change_notifier.changes(conversation_id) as changed:
            version = await version_at(after)
            while True:
                changed.clear()
                before_read = version
                async for event in in_batches(batch, version, attrgetter("version"), HELD_BYTES):
                    yield event
                    version = event.version
                if version == before_read and not await visible_ids(reader, [conversation_id]):
                    return  # it is no longer shared with the caller
                await changed.wait()
                await change_notifier.open()

    async def read(after: int, until: int) -> AsyncGenerator[Event, None]:
        async for event in in_batches(batch, await version_at(after), attrgetter("version"), HELD_BYTES):
            if event.position > until:
                return
            yield event

    return EventSource((caller, conversation_id), follow, read)


class SharedEvents:
    """The events of one source, read and encoded once for all streams of it.

    Attributes:
        dropped_until: every event of the source beyond this position that was read is in memory.
    """

    def __init__(self, source: EventSource, position: int, time_slice: TimeSlice) -> None:
        """Begin to read beyond a position, up to which the log is final."""
        self.dropped_until = position
        self._time_slice = time_slice
        self._texts: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._positions: dict[object, int] = {}
        self._awaited: set[object] = set()
        self._taken = asyncio.Event()
        self._reading = asyncio.create_task(self._read(source), name="eventstore-stream")
        self._reading.add_done_callback(self._end)

    @property
    def has_ended(self) -> bool:
        """Whether there will be no more events."""
        return self._reading.done()

    @property
    def is_idle(self) -> bool:
        """Whether no stream follows it."""
        return not self._positions

    async def close(self) -> None:
        """Stop reading."""
        await cancel_and_wait([self._reading])

    async def follow(self, source: EventSource, after: int) -> AsyncGenerator[bytes, None]:
        """The encoded events beyond a position, several at a time. It ends, or fails, when the source does."""
        position = after
        stream = object()
        self._positions[stream] = position
        try:
            while True:
                while position < self.dropped_until:
                    until = self.dropped_until
                    async with aclosing(self._read_again(source, position, until)) as texts:
                        async for text in texts:
                            yield text
                    position = self._advance(stream, until)
                await self._time_slice.give_way()  # an event wakes all streams at once
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
                    await self._reading  # raises what it failed with
                    return
                else:
                    await changed.wait()
        finally:
            del self._positions[stream]
            self._discard(stream)

    async def _read_again(self, source: EventSource, after: int, until: int) -> AsyncGenerator[bytes, None]:
        found: list[bytes] = []
        size = 0
        async with aclosing(source.read(after, until)) as events:
            async for event in events:
                await self._time_slice.give_way()
                found.append(said(event))
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
                text = said(event)
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
        self._texts.popleft()
        self._bytes -= len(text)
        self.dropped_until = position

    def _end(self, reading: asyncio.Task[None]) -> None:
        self._changed.set()
        if not reading.cancelled():
            reading.exception()  # which the streams raise, if there are any

    def _advance(self, stream: object, position: int) -> int:
        self._positions[stream] = position
        self._discard(stream)
        return position

    def _discard(self, stream: object) -> None:
        self._awaited.discard(stream)
        if not self._awaited:
            self._taken.set()


class SharedStreams:
    """The shared events of all streams of a server, by source."""

    def __init__(self, store: EventStore, turns: WorkTurns) -> None:
        self._store = store
        self._turns = turns
        self._shared: dict[Hashable, SharedEvents] = {}

    async def follow(self, source: EventSource, tenant: str, after: int) -> AsyncGenerator[bytes, None]:
        """The encoded events of a source beyond a position, those to come included, several at a time."""
        if self._following(source) is None:
            position = await end_of_log(self._store)
            if self._following(source) is None:  # still
                self._shared[source.key] = SharedEvents(source, position, TimeSlice(self._turns, tenant))
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

    def _following(self, source: EventSource) -> SharedEvents | None:
        shared = self._shared.get(source.key)
        return None if shared is None or shared.has_ended else shared


class EventStream(Response):
    """Says events until the client leaves, is no longer let in, or the server closes.

    Args:
        texts: encoded events.
        after: the position where it begins, told at once, so that a client that comes again before anything was said
            misses nothing.
        closing: is set when the server closes.
        place: is taken as long as it lasts; that of a usual request is given up.
        is_let_in: says whether the client still may listen.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        texts: AsyncGenerator[bytes, None],
        after: int,
        *,
        closing: asyncio.Event,
        place: AbstractContextManager[None],
        is_let_in: Callable[[], Awaitable[bool]],
    ) -> None:
        # Nothing between here and the client may keep it or hold it back (the last is nginx's word).
        super().__init__(headers={"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._texts = texts
        self._after = after
        self._closing = closing
        self._place = place
        self._is_let_in = is_let_in
        self._said = time.monotonic()
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers.

        Raises:
            TooMany, Busy: there are too many streams.
        """
        with self._place:
            request_limit: ExitStack = Request(scope).state.places
            request_limit.close()
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        tasks = [
            asyncio.create_task(work)
            for work in (
                self._say_events(send),
                self._stay_alive(send),
                _left(receive),
                self._closed(),
                self._shut_out(),
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

    async def _say_events(self, send: Send) -> None:
        await self._say(send, b"retry: %d\nid: %d\n\n" % (_RETRY_MILLISECONDS, self._after))
        async with aclosing(self._texts) as texts:
            async for text in texts:
                await self._say(send, text)

    async def _stay_alive(self, send: Send) -> None:
        while True:
            silent = time.monotonic() - self._said
            if silent >= KEEP_ALIVE_SECONDS:
                await self._say(send, b": still here\n\n")
            else:
                await asyncio.sleep(KEEP_ALIVE_SECONDS - silent)

    async def _closed(self) -> None:
        await self._closing.wait()

    async def _shut_out(self) -> None:
        """Returns when the client may listen no longer: its key was revoked, its token has expired."""
        while await self._is_let_in():  # noqa: ASYNC110 - nobody tells when a token loses its worth
            await asyncio.sleep(LOOK_SECONDS)

    async def _say(self, send: Send, text: bytes) -> None:
        async with self._turn:
            await send({"type": "http.response.body", "body": text, "more_body": True})
        self._said = time.monotonic()


def said(event: Event) -> bytes:
    """An event as it is said. Its type and its data hold no line break: JSON escapes those."""
    name = event.event_type.replace("\n", " ").replace("\r", " ")
    data = event_out(event).model_dump_json()
    return f"id: {event.position}\nevent: {name}\ndata: {data}\n\n".encode()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
