"""The FastAPI application: routers, error handlers, OpenAPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from agent_manager.adapters import a2a_demo
from agent_manager.server.authorization import security_schemes
from agent_manager.server.context import ServerContext
from agent_manager.server.errors import Rejected, problem, problem_of, problem_of_refusal, refused
from agent_manager.server.limits import largest_body
from agent_manager.server.middleware import RequestGuard
from agent_manager.server.routes import conversations, health, log, members, messages, search_statistics_agents
from agent_manager.server.routes.openapi import problem_schema
from eventstore.errors import EventStoreError

ROUTERS = (health.router, a2a_demo.router, a2a_demo.plain)
V1 = "/v1"
V1_ROUTERS = (conversations.router, members.router, messages.router, log.router, search_statistics_agents.router)
"""Below :data:`V1`."""

_DESCRIPTION = """Durable, event-sourced conversations, messages and tasks of A2A agents.

Lists come in pages: `next` is the cursor that, as `after`, brings the next one. Every read gives an `ETag`; sent back
as `If-None-Match` it costs next to nothing where nothing has changed. Errors are `application/problem+json`."""


def create_app(server_context: ServerContext, *, names: Sequence[str] | None = None) -> FastAPI:
    """The application.

    Args:
        names: the only host names that it answers to; None is any.
    """
    app = FastAPI(
        title="eventstore",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,  # the pages that FastAPI has for it load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.server_context = server_context
    for router in ROUTERS:
        app.include_router(router)
    for router in V1_ROUTERS:
        app.include_router(router, prefix=V1)
    _tell_errors(app)
    _describe(app)
    settings = server_context.settings
    app.add_middleware(
        RequestGuard,
        max_body_bytes=largest_body(settings),
        body_seconds=settings.body_seconds,
        names=names,
        counters=server_context.counters,
    )
    return app


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(EventStoreError)
    async def of_the_store(_: Request, error: EventStoreError) -> Response:
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    async def of_the_input(_: Request, error: RequestValidationError) -> Response:
        return refused(error)

    @app.exception_handler(Rejected)
    async def of_a_refusal(request: Request, error: Rejected) -> Response:
        request.app.state.server_context.counters.add("http_refused", reason=error.reason)
        return problem_of_refusal(error)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        said = f"there is nothing at {request.url.path}" if error.status_code == 404 else error.detail
        headers = dict(error.headers or {})
        if error.status_code == 405:  # starlette names the methods of the first endpoint at this address alone
            headers["Allow"] = ", ".join(sorted(_methods_at(request.url.path)))
        return problem(error.status_code, said, headers=headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return problem(500, "something unforeseen went wrong; what it was stands in the server's log")


def _methods_at(path: str) -> set[str]:
    found: set[str] = set()
    for prefix, routers in (("", ROUTERS), (V1, V1_ROUTERS)):
        for route in (route for router in routers for route in router.routes):
            if isinstance(route, Route) and path.startswith(prefix) and route.path_regex.match(path[len(prefix) :]):
                found |= route.methods or set()
    return found or {"GET"}  # of the description


def _describe(app: FastAPI) -> None:
    """Adds to the OpenAPI what FastAPI does not know, and leaves out what it says of errors that are told otherwise."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = made()
            components = described.setdefault("components", {})
            components["securitySchemes"] = security_schemes()
            schemas = components.setdefault("schemas", {})
            schemas.update(problem_schema())
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
