"""The FastAPI application: routers, error handlers and the OpenAPI document.

A request passes through these steps, from top to bottom; each ends it with a problem response if it does not go on:

1. :mod:`~agent_manager.server.protocol` reads the head from the connection (uvicorn's HTTP/1.1 protocol with a limit of
   connections and timeouts).
2. :mod:`~agent_manager.server.request_log` gives the request an id, logs it at its end, and makes it a span.
   :mod:`~agent_manager.server.middleware`: ``SecurityHeaders`` adds headers to the response. ``RequestGuard`` checks
   the host and the origin, makes the path canonical, and bounds the body. ``Deadline`` bounds the time.
3. FastAPI matches the path to a route, an :class:`~agent_manager.server.authorization.AuthorizedRoute`. It identifies
   the caller, applies :mod:`~agent_manager.server.limits`, and checks the scope, all before it reads the body. Then it
   reads the body, the request waits for its turn among those of its tenant, and
   :mod:`~agent_manager.server.json_request` parses the body. If the request has an ``Idempotency-Key``,
   :mod:`~agent_manager.server.idempotency` runs it once.
4. FastAPI validates the parameters and the body against :mod:`~agent_manager.server.schemas` and calls the endpoint in
   :mod:`~agent_manager.server.routes` with a :class:`~agent_manager.server.context.RequestContext`: the store, the
   reader and the manager of the caller.
5. A write appends through the context. A read waits until the read tables hold what the tenant has written
   (:mod:`~agent_manager.server.read_your_writes`), and writes its body from a :class:`projections.Reader` into
   :mod:`~agent_manager.server.response_cache`, which reuses the body while nothing has changed and sends it at the pace
   of the client. A stream (:mod:`~agent_manager.server.streams`) sends events as they are appended.

Errors become responses (:mod:`~agent_manager.server.problems`): rejections in ``RequestGuard``, all others here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from agent_manager import console
from agent_manager.adapters import a2a_demo
from agent_manager.server.authorization import security_schemes
from agent_manager.server.context import ServerContext
from agent_manager.server.limits import largest_body
from agent_manager.server.middleware import Deadline, RequestGuard
from agent_manager.server.problems import error_response, problem, problem_of_validation
from agent_manager.server.protocol import network_of
from agent_manager.server.routes import (
    agents,
    conversations,
    erasures,
    forks,
    health,
    log,
    members,
    messages,
    projections,
    retention,
    search,
    statistics,
    tasks,
    trail,
)
from agent_manager.server.routes.declarations import problem_schema
from eventstore.errors import EventStoreError

OPENAPI_PATH = "/openapi.json"
ROUTERS = {
    "": (health.router, a2a_demo.router, a2a_demo.plain),
    "/v1": (
        conversations.router,
        forks.router,
        members.router,
        messages.router,
        tasks.router,
        log.router,
        trail.router,
        search.router,
        statistics.router,
        agents.router,
        erasures.router,
        retention.router,
        projections.router,
    ),
}
"""The routers by the prefix of their paths."""

_TEMPLATES: dict[Any, str] = {
    route.endpoint: prefix + route.path
    for prefix, routers in ROUTERS.items()
    for router in routers
    for route in router.routes
    if isinstance(route, Route)
}


def route_of(scope: Scope) -> str:
    """Return the template of a request's path, such as ``/v1/conversations/{conversation}``; empty without a route.

    In some versions of FastAPI, a route lacks the prefix of its router.
    """
    return _TEMPLATES.get(scope.get("endpoint")) or str(getattr(scope.get("route"), "path", ""))


_DESCRIPTION = """Durable, event-sourced conversations, messages and tasks of A2A agents.

Lists are paged: `next` is the cursor of the next page; send it as `after`. Reads return an `ETag`; a read with this tag
as `If-None-Match` is cheap while nothing has changed. Errors are `application/problem+json`."""


def create_app(server_context: ServerContext, *, names: Sequence[str] | None = None) -> FastAPI:
    """Return the application.

    Args:
        names: The host names that requests may name; any if None.
    """
    app = FastAPI(
        title="eventstore",
        version="1",
        description=_DESCRIPTION,
        openapi_url=None,  # FastAPI would encode the document for each request
        docs_url=None,  # its documentation pages load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # its spans have paths and queries in them
    )
    app.state.server_context = server_context
    for prefix, routers in ROUTERS.items():
        for router in routers:
            app.include_router(router, prefix=prefix)
    app.include_router(console.router)
    _handle_errors(app)
    _complete_openapi(app)
    settings = server_context.settings
    app.add_middleware(Deadline, seconds=settings.request_seconds, metrics=server_context.metrics)
    app.add_middleware(  # around the one before
        RequestGuard,
        max_body_bytes=largest_body(settings),
        body_seconds=settings.body_seconds,
        names=names,
        metrics=server_context.metrics,
        wait_for_turn=partial(_wait_for_turn, server_context),
    )
    return app


async def _wait_for_turn(server_context: ServerContext, scope: Scope) -> None:
    """Wait for the turn of the network of a request that has shown no valid token.

    Many connections can send requests at once that cost them nothing. In each iteration of the event loop, one of them
    is handled.
    """
    if not server_context.authenticator.is_trusted(Headers(scope=scope)):
        client = scope.get("client")
        await server_context.limits.turns.wait(f"address {network_of(client[0] if client else '')}")


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(EventStoreError)
    async def handle_store_error(request: Request, error: EventStoreError) -> Response:
        return error_response(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(_: Request, error: RequestValidationError) -> Response:
        return problem_of_validation(error)

    @app.exception_handler(HTTPException)
    async def handle_http_exception(request: Request, error: HTTPException) -> Response:
        detail = f"there is nothing at {request.url.path}" if error.status_code == 404 else error.detail
        headers = dict(error.headers or {})
        if error.status_code == 405:  # Starlette names only the methods of the first route with this path
            headers["Allow"] = ", ".join(sorted(_methods_at(request.url.path)))
        return problem(error.status_code, detail, headers=headers)

    @app.exception_handler(Exception)
    async def handle_unexpected_error(_: Request, error: Exception) -> Response:
        return problem(500, "internal error: see the server's log, by the request_id")


def _methods_at(path: str) -> set[str]:
    methods: set[str] = set()
    for prefix, routers in ROUTERS.items():
        for route in (route for router in routers for route in router.routes):
            if isinstance(route, Route) and path.startswith(prefix) and route.path_regex.match(path[len(prefix) :]):
                methods |= route.methods or set()
    return methods or {"GET"}  # /openapi.json, which FastAPI adds itself


def _complete_openapi(app: FastAPI) -> None:
    """Add security schemes and the problem schema to the OpenAPI document; remove FastAPI's own error schemas."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        is_cached = app.openapi_schema is not None
        document = generate()
        if not is_cached:
            components = document.setdefault("components", {})
            components["securitySchemes"] = security_schemes()
            schemas = components.setdefault("schemas", {})
            schemas.update(problem_schema())
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents for extending the document
    text = b""

    async def respond(_: Request) -> Response:
        nonlocal text
        text = text or to_json(app.openapi())
        return Response(text, media_type="application/json")

    app.add_route(OPENAPI_PATH, respond, include_in_schema=False)
