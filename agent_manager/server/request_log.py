"""The outermost ASGI middleware: the id of a request, its line in the log, and its span.

The line names the route by its template, because a path has ids in it, and a query may have anything. The id comes from
the header ``X-Request-ID`` if that is a short token; it is returned in the same header and in the body of an error, and
is in every record that is logged while the request is handled (:data:`~agent_manager.logs.request_id`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_manager.logs import request_id
from eventstore.tracing import span, tracing

REQUEST_ID = "X-Request-ID"
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KNOWN_METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))

_log = logging.getLogger(__name__)


class RequestLog:
    """An ASGI middleware that gives each request an id and a span, and logs it once its response has ended.

    Args:
        route_of: Returns the template of the path of a request that was routed, and nothing for any other path.
    """

    def __init__(self, app: ASGIApp, route_of: Callable[[Scope], str]) -> None:
        self._app = app
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and log it."""
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        identifier = given if _ACCEPTED_ID.fullmatch(given) else uuid4().hex
        request_id.set(identifier)  # each request has a task of its own
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "_OTHER"
        began = perf_counter()
        status: int | None = None
        sent = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = identifier
            sent += len(message.get("body", b""))
            await send(message)

        with _server_span(method, headers, scope) as set_result:
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                status = status or 500  # which uvicorn sends
                _log.exception("internal error", extra={"event": "internal_error"})
                raise
            finally:
                route = self._route_of(scope) or "unmatched"
                set_result(route, status)
                fields = {
                    "event": "request",
                    "method": method,
                    "route": route,
                    "status": status,
                    "milliseconds": round((perf_counter() - began) * 1000, 1),
                    "bytes": sent,
                    "tenant": getattr(scope.get("state", {}).get("identity"), "tenant", None),
                }
                level = logging.WARNING if status is not None and status >= 500 else logging.INFO
                _log.log(level, "%s %s", method, route, extra=fields)


@contextmanager
def _server_span(method: str, headers: Headers, scope: Scope) -> Iterator[Any]:
    """Make a request a span until the end of the block, if there are traces: a child of the client's, if it names one.

    Yield a function that takes the route and the status of the response.
    """
    api = tracing()
    if api is None:
        yield lambda route, status: None
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    attributes = {"http.request.method": method, "url.scheme": scope.get("scheme", "http")}
    parent = TraceContextTextMapPropagator().extract(carrier)
    with span(api, method, "SERVER", attributes, context=parent) as opened:

        def set_result(route: str, status: int | None) -> None:
            opened.update_name(f"{method} {route}")
            opened.set_attribute("http.route", route)
            if status is not None:
                opened.set_attribute("http.response.status_code", status)
                if status >= 500:
                    opened.set_status(api.StatusCode.ERROR)

        yield set_result
