"""What is refused before anything is read: bodies that are too large or do not come, and what a strange web page asks.

A server on the user's own machine is reached by every page that their browser shows. A page of another site may send
simple requests to it, and may by a name of its own that leads to 127.0.0.1 (DNS rebinding) even read the answers.
So where the server listens on the machine itself only, and asks for no tokens, it answers only to the machine's own
names; and nowhere does it let a page of another site change anything.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_manager.http.counting import Counters
from agent_manager.http.paths import canonical_path
from agent_manager.http.problems import problem, problem_of_refusal
from agent_manager.http.refusals import Refused, TooLarge, TooSlow

_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")


class Guard:
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
        if said_length(headers) > self._limit:
            body.refused = TooLarge(self._limit)
            await self._refuse(body.refused, scope, receive, send)
            return

        async def told(message: Message) -> None:
            if body.refused is None:
                await send(message)
            elif message["type"] == "http.response.start":  # whatever it was made of the error
                await self._refuse(body.refused, scope, receive, send)

        await self._app(scope, body.receive, told)

    async def _refuse(self, refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
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
        self.refused: Refused | None = None

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


def said_length(headers: Headers) -> int:
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
