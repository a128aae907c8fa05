"""A request's time, and how its answer is sent: nobody holds a place, or an answer, for ever.

1. An answer must begin within the time of a request (``EVENTSTORE_REQUEST_SECONDS``), from when its head was read. Else
   what is under way for it is cancelled, and the answer says so. What was sent to the database may be stored already:
   a repetition with the same idempotency key finds it.
2. It must have been taken within :data:`TAKE_SECONDS` more, and a second for each :data:`LEAST_RATE` bytes of it. Else
   the connection is closed. Only event streams (server-sent events) may go on.
3. Whatever makes it, it is sent in pieces of :data:`~agent_manager.http.spool.PIECE_BYTES`, each when the connection
   has taken the one before. A client that takes nothing is let go sooner, see :mod:`agent_manager.http.protocol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_manager.http.counting import Counters
from agent_manager.http.problems import problem_of_refusal
from agent_manager.http.refusals import Busy
from agent_manager.http.spool import PIECE_BYTES

TAKE_SECONDS = 60.0
"""For an answer to be taken, however small it is."""
LEAST_RATE = 16 * 1024
"""Bytes a second that a client must take of a larger one, on average."""
ABORT = "abort_connection"
"""The member of a request's state that closes its connection at once, and drops what was not sent."""


class Deadline:
    """An ASGI application that ends requests that take too long.

    Args:
        seconds: for an answer to begin.
    """

    def __init__(self, app: ASGIApp, seconds: float, counters: Counters) -> None:
        self._app = app
        self._seconds = seconds
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        has_begun = False
        deadline = asyncio.timeout(self._seconds)

        async def send_pieces(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                seconds = _seconds_to_send(Headers(raw=message["headers"]))
                deadline.reschedule(None if seconds is None else loop.time() + seconds)
            body = message.get("body", b"")
            while len(body) > PIECE_BYTES:
                await send({"type": message["type"], "body": body[:PIECE_BYTES], "more_body": True})
                body = body[PIECE_BYTES:]
            await send(message if len(message.get("body", b"")) <= PIECE_BYTES else {**message, "body": body})

        try:
            async with deadline:
                await self._app(scope, receive, send_pieces)
        except TimeoutError:
            if not deadline.expired():
                raise
            if not has_begun:
                refusal = Busy(
                    f"the request took more than {self._seconds:g} seconds and was ended: ask for less at a time, or "
                    "raise EVENTSTORE_REQUEST_SECONDS; if it writes, repeat it with the same Idempotency-Key, because "
                    "it may be stored already",
                    "slow request",
                )
                self._counters.add("http_refused", reason=refusal.reason)
                await problem_of_refusal(refusal)(scope, receive, send)
                return
            self._counters.add("http_refused", reason="slow reader")
            abort: Callable[[], None] | None = scope.get("state", {}).get(ABORT)
            if abort is not None:
                abort()
                while (await receive())["type"] != "http.disconnect":
                    pass


def _seconds_to_send(headers: Headers) -> float | None:
    if headers.get("content-type", "").startswith("text/event-stream"):
        return None
    return TAKE_SECONDS + int(headers.get("content-length", 0)) / LEAST_RATE
