"""ASGI middleware: canonical paths, security headers, cross-origin requests, and time limits of requests.

**Canonical paths.** ASGI servers decode the path before it is routed. The request
``DELETE /v1/conversations/x%2Fmembers%2Fbob``, meant for the conversation ``x/members/bob``, would then remove the
member ``bob`` of the conversation ``x``. So routes match a path whose segments are percent-encoded in one canonical
form, and path parameters are decoded afterwards. What is derived from the path, such as a cache key, then differs
whenever the resources differ.

**Cross-origin requests.** Every web page in a user's browser can reach a server on the user's machine. A page of
another site can send simple requests. With DNS rebinding (a name of the site that resolves to 127.0.0.1) it can even
read the responses. So a server that listens on loopback only and requires no tokens accepts only the host names of
loopback, and no server lets a page of another origin change anything.

**Time limits.**

1. A response must begin within ``EVENTSTORE_REQUEST_SECONDS`` after the head of the request was read. Otherwise the
   request is cancelled and rejected with 503. Its events may be stored already; the same request with the same
   idempotency key returns their result.
2. The client must take the response within :data:`SEND_SECONDS`, and a second more for each
   :data:`MIN_BYTES_PER_SECOND` bytes of it. Otherwise the connection is closed. Event streams (server-sent events) are
   exempt.
3. A response is sent in pieces of at most :data:`~agent_manager.server.response_cache.PIECE_BYTES`, each when the
   connection has taken the one before. A client that takes nothing is disconnected sooner
   (:mod:`agent_manager.server.protocol`).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_manager.metrics import Metrics
from agent_manager.server.problems import Busy, Rejected, TooLarge, error_response
from agent_manager.server.response_cache import PIECE_BYTES
from eventstore.errors import printable

# Canonical paths


def canonical_path(scope: Scope) -> str:
    """Return the path of a request with each segment in canonical encoding.

    Raises:
        Rejected: A segment is not UTF-8, or has a NUL character.
    """
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # optional in ASGI; without it, an encoded slash is indistinguishable from a separator
        return quote(scope["path"])
    try:
        # ASGI excludes the query string from raw_path, but some test clients include it.
        segments = [unquote_to_bytes(segment).decode() for segment in raw.partition(b"?")[0].split(b"/")]
    except UnicodeDecodeError:
        raise Rejected("the path is not valid UTF-8: percent-encode the UTF-8 bytes of each id", "path") from None
    if any("\0" in segment for segment in segments):
        raise Rejected("the path has a NUL character (%00), which no id may contain", "path", status=422)
    return "/".join(quote(segment, safe="") for segment in segments)


def check_query(scope: Scope) -> None:
    """Check the texts in the query, before a parser replaces what is not UTF-8.

    Raises:
        Rejected: A parameter is not UTF-8, or has a NUL character.
    """
    query = scope["query_string"].decode("latin-1")
    try:
        parameters = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Rejected("the query is not valid UTF-8: percent-encode UTF-8 bytes", "query") from None
    for name, value in parameters:
        if "\0" in name + value:
            detail = f"{printable(name, 80)}: has a NUL character (%00), which PostgreSQL cannot store: remove it"
            raise Rejected(detail, "query", status=422)


def decode_parameters(scope: Scope) -> None:
    """Decode the parameters that a route has extracted from a canonical path."""
    found = scope.get("path_params", {})
    scope["path_params"] = {name: unquote(value) for name, value in found.items()}


# Security headers

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-site",
    "Cache-Control": "no-store",
}
"""Headers of every response; a value that the endpoint sets takes precedence."""
_STRICT_TRANSPORT = "max-age=31536000"


class SecurityHeaders:
    """An ASGI middleware that adds the security headers, and measures the responses.

    Args:
        route_of: Returns the template of the path of a request that was routed.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, route_of: Callable[[Scope], str]) -> None:
        self._app = app
        self._metrics = metrics
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and add the headers to its response."""
        began = perf_counter()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = perf_counter() - began
                self._metrics.count_response(scope["method"], self._route_of(scope), message["status"], seconds)
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                # A browser or proxy must not serve a response that it cached for one caller to another one.
                headers.add_vary_header("Authorization")
                if scope.get("scheme") == "https":
                    headers["Strict-Transport-Security"] = _STRICT_TRANSPORT
            await send(message)

        await self._app(scope, receive, send_with_headers)


# Checks of requests

_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")


class RequestGuard:
    """An ASGI middleware that checks the host, the origin, the path and the body of each request.

    It also responds to every request that is rejected, here or further inside.

    Args:
        max_body_bytes: The limit on the bytes of a request's body.
        body_seconds: Seconds for the body to arrive, from when the head was read.
        names: The host names that the server accepts; None accepts any.
        wait_for_turn: Delays a request until it may take time of the event loop.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        body_seconds: float,
        names: Sequence[str] | None,
        metrics: Metrics,
        wait_for_turn: Callable[[Scope], Awaitable[None]] | None = None,
    ) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._seconds = body_seconds
        self._names = names
        self._metrics = metrics
        self._wait_for_turn = wait_for_turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with a canonical path and a limited body, unless it is rejected."""
        try:
            self._check(scope["method"], Headers(scope=scope))
            scope["path"] = canonical_path(scope)
            if self._wait_for_turn is not None:
                await self._wait_for_turn(scope)
            await self._app(scope, self._limited(receive), send)
        except Rejected as rejected:
            self._metrics.count_rejection(rejected.reason)
            await error_response(scope, rejected)(scope, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if "transfer-encoding" in headers and "content-length" in headers:
            # Request smuggling: if a proxy uses one header and this server the other, bytes of one client's body are
            # read as the beginning of another client's request.
            detail = "the request has both Content-Length and Transfer-Encoding: send only one of them"
            raise Rejected(detail, "two_lengths", {"Connection": "close"})
        if self._names is not None and _name(host) not in self._names:
            detail = f"the server listens on loopback only and does not accept the host name {host!r}: use localhost"
            raise Rejected(detail, "host", status=421)
        if method not in _SAFE and _is_foreign(headers, host):
            detail = "a web page of another origin must not change anything: send the request from the same origin"
            raise Rejected(detail, "foreign_page", status=403)
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._limit:
            raise TooLarge(self._limit)

    def _limited(self, receive: Receive) -> Receive:
        deadline = asyncio.get_running_loop().time() + self._seconds
        received, is_whole = 0, False

        async def receive_limited() -> Message:
            nonlocal received, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"the body did not arrive in {self._seconds:g} seconds: send less at a time, or raise "
                detail += "EVENTSTORE_BODY_SECONDS"
                raise Rejected(detail, "slow_body", {"Connection": "close"}, status=408) from None
            received += len(message.get("body", b""))
            if received > self._limit:
                raise TooLarge(self._limit)
            is_whole = not message.get("more_body", False)
            return message

        return receive_limited


def names_of(host: str) -> tuple[str, ...] | None:
    """Return the host names that a server on ``host`` accepts; None, for any, unless ``host`` is loopback."""
    if host == "localhost":
        return _OWN_NAMES
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = False
    return (*_OWN_NAMES, host) if is_own else None


def _is_foreign(headers: Headers, host: str) -> bool:
    """Return whether the headers show that a page of another origin sends the request."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


# Time limits

SEND_SECONDS = 60.0
"""Seconds in which a client must take a response of any size."""
MIN_BYTES_PER_SECOND = 16 * 1024
"""Bytes of a response that extend this time by one second."""
ABORT = "abort_connection"
"""The key in a request's state of a function that closes the connection immediately and discards unsent data."""


class Deadline:
    """An ASGI middleware that cancels requests that take too long, and disconnects clients that read too slowly.

    Args:
        seconds: Seconds until a response must begin.
    """

    def __init__(self, app: ASGIApp, seconds: float, metrics: Metrics) -> None:
        self._app = app
        self._seconds = seconds
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and enforce the time limits.

        Raises:
            Busy: The response does not begin in time.
        """
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
                raise Busy(
                    f"the request took more than {self._seconds:g} seconds and was cancelled: request less at a time, "
                    "or raise EVENTSTORE_REQUEST_SECONDS; if it writes, repeat it with the same Idempotency-Key, "
                    "because its events may be stored already",
                    "slow_request",
                ) from None
            self._metrics.count_rejection("slow_reader")
            abort: Callable[[], None] | None = scope.get("state", {}).get(ABORT)
            if abort is not None:
                abort()
                while (await receive())["type"] != "http.disconnect":
                    pass


def _seconds_to_send(headers: Headers) -> float | None:
    """Return the seconds in which a client must take a response; None, for no limit, if it is an event stream."""
    if headers.get("content-type", "").startswith("text/event-stream"):
        return None
    return SEND_SECONDS + int(headers.get("content-length", 0)) / MIN_BYTES_PER_SECOND
