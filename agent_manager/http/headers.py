"""What every answer says beside what was asked: headers that keep browsers from doing more with it than reading it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_manager.http.counting import Counters

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-site",
    "Cache-Control": "no-store",
}
"""Where an endpoint says something else, that stands."""
_STRICT_TRANSPORT = "max-age=31536000"


class Headed:
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
