"""Server-sent events.

A stream reads its conversation itself, by version, so that nothing is queued for a client that is slow. It registers
here before it reads: an event that the read does not see is committed later, and the subscription, which stood at or
before the end of the log when the stream registered, comes to it then.

A client that was cut off sends the last id that it saw (Last-Event-ID) and gets what comes after it. Nothing is queued
for a client that is slow: the next event is read once the connection has taken the one before.
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
from agent_manager.server.schemas.events import event_out
from eventstore import Event, EventStore
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


async def of_conversation(
    reader: Reader, change_notifier: ChangeNotifier, conversation_id: UUID, after: int
) -> AsyncGenerator[Event, None]:
    """The events of a conversation beyond a position, those to come included."""

    def read(version: int, limit: int) -> AsyncIterator[Event]:
        caller = reader.caller
        return reader.store.read(conversation_id, after=version, limit=limit, tenant=caller.tenant, user=caller.user)

    await change_notifier.open()
    with change_notifier.changes(conversation_id) as changed:
        before = await resolve(reader, conversation_id, after)
        version = before.version if before is not None else 0
        while True:
            changed.clear()
            before_read = version
            async for event in in_batches(read, version, attrgetter("version"), HELD_BYTES):
                yield event
                version = event.version
            if version == before_read and not await visible_ids(reader, [conversation_id]):
                return  # it is no longer shared with who listens
            await changed.wait()
            await change_notifier.open()


class EventStream(Response):
    """Says events until the client leaves, is no longer let in, or the server closes.

    Args:
        after: the position where it begins, told at once, so that a client that comes again before anything was said
            misses nothing.
        closing: is set when the server closes.
        place: is taken as long as it lasts; that of a usual request is given up.
        is_let_in: says whether the client still may listen.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[Event],
        after: int,
        *,
        closing: asyncio.Event,
        place: AbstractContextManager[None],
        is_let_in: Callable[[], Awaitable[bool]],
    ) -> None:
        # Nothing between here and the client may keep it or hold it back (the last is nginx's word).
        super().__init__(headers={"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
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
        async with aclosing(cast(AsyncGenerator[Event, None], self._events)) as events:
            async for event in events:
                await self._say(send, said(event))

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
