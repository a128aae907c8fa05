"""What is refused before anything is read: bodies that are too large, and requests that a strange web page makes.

A server on the user's own machine is reached by every page that their browser shows. A page of another site may send
simple requests to it, and may by a name of its own that leads to 127.0.0.1 (DNS rebinding) even read the answers.
So where the server listens on the machine itself only, it answers only to the machine's own names; and nowhere does
it let a page of another site change anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_manager.http.problems import problem

_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")


class Guard:
    """An ASGI application that passes on what may pass.

    Args:
        max_body_bytes: of a request.
        names: the only host names that it answers to; None is any.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, names: Sequence[str] | None) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or lets answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope["method"], headers)
        if refused is not None:
            await problem(*refused)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise BodyTooLarge
            return message

        async def told(message: Message) -> None:
            if received <= self._limit:
                await send(message)
            elif message["type"] == "http.response.start":  # whatever it was made of the error
                await problem(413, too_large(self._limit))(scope, receive, send)

        await self._app(scope, counted, told)

    def _refused(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._names is not None and _name(host) not in self._names:
            return 421, f"this server listens on its own machine only, and answers to no other name than its: {host!r}"
        if method not in _SAFE and _is_foreign(headers, host):
            return 403, "a web page of another site may not change anything here"
        said = headers.get("content-length", "0")
        if said.isascii() and said.isdigit() and int(said[:20]) > self._limit:
            return 413, too_large(self._limit)
        return None


class BodyTooLarge(Exception):
    """A request's body turned out to be larger than the limit: stops whoever reads it."""


def too_large(limit: int) -> str:
    """What to say of a body beyond the limit."""
    return (
        f"the body takes more than {limit:,} bytes: send less at a time, "
        "or raise EVENTSTORE_MAX_CONTENT_BYTES, from which the limit comes"
    )


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
