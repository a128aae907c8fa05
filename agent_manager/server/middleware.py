"""Middleware: request limits, cross-site requests, security headers.

ASGI servers decode the path before anything is routed. ``DELETE /v1/conversations/x%2Fmembers%2Fbob``, meant for the
conversation ``x/members/bob``, would then remove the member ``bob`` of the conversation ``x``. So routes match a path
in which every segment is percent-encoded in one canonical way, and their parameters are decoded afterwards. Whatever
is derived from the path of a request, such as keys of caches, differs wherever the resources differ.

A server on the user's own machine is reached by every page that their browser shows. A page of another site may send
simple requests to it, and may by a name of its own that leads to 127.0.0.1 (DNS rebinding) even read the answers.
So where the server listens on the machine itself only, and asks for no tokens, it answers only to the machine's own
names; and nowhere does it let a page of another site change anything.

1. An answer must begin within the time of a request (``EVENTSTORE_REQUEST_SECONDS``), from when its head was read. Else
   what is under way for it is cancelled, and the answer says so. What was sent to the database may be stored already:
   a repetition with the same idempotency key finds it.
2. It must have been taken within :data:`TAKE_SECONDS` more, and a second for each :data:`LEAST_RATE` bytes of it. Else
   the connection is closed. Only event streams (server-sent events) may go on.
3. Whatever makes it, it is sent in pieces of :data:`~agent_manager.server.response_cache.PIECE_BYTES`, each when the
connection
   has taken the one before. A client that takes nothing is let go sooner, see :mod:`agent_manager.server.protocol`.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_manager.server.limits import Counters
from agent_manager.server.problems import Busy, Rejected, TooLarge, TooSlow, problem, problem_of_refusal
from agent_manager.server.response_cache import PIECE_BYTES

# Routing by the path as it was sent: a percent-encoded / is part of an id, not a separator


def canonical_path(scope: Scope) -> str | None:
    """Return the path of a request with each segment in canonical encoding; None if a segment is not UTF-8."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # optional in ASGI; without it, an encoded slash can no longer be told from a separator
        return quote(scope["path"])
    try:
        # Query strings are no part of it in ASGI, but some test clients leave them in.
        segments = [unquote_to_bytes(segment).decode() for segment in raw.partition(b"?")[0].split(b"/")]
    except UnicodeDecodeError:
        return None
    return "/".join(quote(segment, safe="") for segment in segments)


def decode_parameters(scope: Scope) -> None:
    """Decode what a route has found in a canonical path."""
    found = scope.get("path_params", {})
    scope["path_params"] = {name: unquote(value) for name, value in found.items()}


# What every answer says beside what was asked: headers that keep browsers from doing more with it than reading it

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-site",
    "Cache-Control": "no-store",
}
"""Where an endpoint says something else, that stands."""
_STRICT_TRANSPORT = "max-age=31536000"


class SecurityHeaders:
    """An ASGI application that adds the headers, and counts answers by their status."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets answer."""

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counters.add("http_answers", status=str(message["status"]))
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                # What is kept for one caller is not for another who uses the same browser or proxy.
                headers.add_vary_header("Authorization")
                if scope.get("scheme") == "https":
                    headers["Strict-Transport-Security"] = _STRICT_TRANSPORT
            await send(message)

        await self._app(scope, receive, headed)


# What is refused before anything is read: bodies that are too large or do not come, and what a strange web page asks

_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")


class RequestGuard:
    """An ASGI application that passes on what may pass.

    Args:
        max_body_bytes: of a request.
        body_seconds: for the body, from when its head was read.
        names: the only host names that it answers to; None is any.
    """

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, body_seconds: float, names: Sequence[str] | None, counters: Counters
    ) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._seconds = body_seconds
        self._names = names
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or lets answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope["method"], headers)
        if refused is not None:
            self._counters.add("http_refused", reason=refused[1])
            await problem(refused[0], refused[2], headers=refused[3])(scope, receive, send)
            return
        path = canonical_path(scope)
        if path is None:
            self._counters.add("http_refused", reason="path")
            said = "the path is not UTF-8: percent-encode the bytes of each id in UTF-8"
            await problem(400, said)(scope, receive, send)
            return
        scope["path"] = path
        body = _Body(receive, self._limit, self._seconds)
        if declared_length(headers) > self._limit:
            body.refused = TooLarge(self._limit)
            await self._refuse(body.refused, scope, receive, send)
            return

        async def told(message: Message) -> None:
            if body.refused is None:
                await send(message)
            elif message["type"] == "http.response.start":  # whatever it was made of the error
                await self._refuse(body.refused, scope, receive, send)

        await self._app(scope, body.receive, told)

    async def _refuse(self, refused: Rejected, scope: Scope, receive: Receive, send: Send) -> None:
        self._counters.add("http_refused", reason=refused.reason)
        await problem_of_refusal(refused)(scope, receive, send)

    def _refused(self, method: str, headers: Headers) -> tuple[int, str, str, dict[str, str]] | None:
        """Status, reason, what to say, and headers of the answer."""
        host = headers.get("host", "")
        if "transfer-encoding" in headers and "content-length" in headers:
            # Where a proxy believes the one and this server the other, what one client sends as a body would be taken
            # for the beginning of another's request.
            said = "a body has one length: send Content-Length or Transfer-Encoding, not both"
            return 400, "two lengths", said, {"Connection": "close"}
        if self._names is not None and _name(host) not in self._names:
            said = f"this server listens on its own machine only, and answers to no other name than its: {host!r}"
            return 421, "host", said, {}
        if method not in _SAFE and _is_foreign(headers, host):
            return 403, "foreign page", "a web page of another site may not change anything here", {}
        return None


class _Body:
    """A request's body, as far as it may come.

    Attributes:
        refused: why the rest is not taken.
    """

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._seconds = seconds
        self._received = 0
        self._is_whole = False
        self.refused: Rejected | None = None

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self.refused = TooSlow(self._seconds)
            raise self.refused from None
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            self.refused = TooLarge(self._limit)
            raise self.refused
        self._is_whole = not message.get("more_body", False)
        return message


def declared_length(headers: Headers) -> int:
    """The length that a request says its body has; 0 where it says none."""
    said = headers.get("content-length", "0")
    return int(said[:20]) if said.isascii() and said.isdigit() else 0


def names_of(host: str) -> tuple[str, ...] | None:
    """The names to which a server that listens on ``host`` answers; None, any, unless that is the machine itself."""
    if host == "localhost":
        return _OWN_NAMES
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = False
    return (*_OWN_NAMES, host) if is_own else None


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a browser says that a page of another origin makes the request."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


# A request's time, and how its answer is sent: nobody holds a place, or an answer, for ever

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
