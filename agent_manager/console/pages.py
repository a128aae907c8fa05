"""Routes of pages: how a function that returns data becomes a page, its JSON, and the part that a script requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from agent_manager.console.rendering import respond_with_page, root_of
from agent_manager.console.session import FormRequest, authorize
from agent_manager.server.authorization import AuthorizedRoute, Data, Handler, check_open_rate, needs
from agent_manager.server.context import LARGE_LIMIT, RequestContext
from agent_manager.server.problems import (
    ERROR_RESPONSE,
    BadToken,
    NoToken,
    Rejected,
    headers_of,
    problem_of,
    problem_of_validation,
    status_of,
)
from agent_manager.server.read_your_writes import READ_TABLES
from eventstore.errors import EventStoreError, NotCaughtUp
from projections.rows import ReadTableRow

ROOT = "/console"
WAIT_SECONDS = 1.0
"""Seconds that a page waits for read tables that are behind."""
_Model = TypeVar("_Model", bound=BaseModel)
_Endpoint = Callable[..., Awaitable[Any]]


class ConsoleRoute(AuthorizedRoute):
    """A route of the console: it takes the token from the cookie, forms as bodies, and shows errors as pages."""

    request_class = FormRequest
    via = "console"

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request if it is admitted."""
        authorize(scope)
        if self.needed is None:
            await check_open_rate(Request(scope))
        scope[ERROR_RESPONSE] = _error_response
        await super().handle(scope, receive, send)

    def rows(self, request: Request) -> int:
        """Return as many rows as a large page has if the page shows what conversations hold, which may be large."""
        holds_content = self.path.startswith((f"{ROOT}/conversations/", f"{ROOT}/log"))
        return LARGE_LIMIT + 1 if holds_content and request.method == "GET" else 0

    def get_route_handler(self) -> Handler:
        """Return a handler that shows invalid input, and what does not exist, as a page."""
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                if _is_for_program(request.scope):
                    return problem_of_validation(error)
                faults = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()[:5]]
                return error_page(request, 422, "; ".join(faults))
            except HTTPException as error:
                return error_page(request, error.status_code, str(error.detail))

        return handle_errors


def page(
    router: APIRouter, path: str, template: str, kind: Data, *more: Data, **by_parameter: Data
) -> Callable[[_Endpoint], _Endpoint]:
    """Register a function that returns the data of a page as the page, and with ``.json`` as the data.

    The function takes ``context``. The template is rendered with the data.

    Args:
        kind, more, by_parameter: The data that the page shows, see :func:`agent_manager.server.authorization.needs`.
    """

    def register(read: _Endpoint) -> _Endpoint:
        @wraps(read)
        async def as_json(**given: Any) -> Response:
            context: RequestContext = given["context"]
            try:
                body = await context.in_thread(partial(to_json, fallback=str), await read(**given))
            finally:
                await context.end_large()
            return Response(body, media_type="application/json")

        @wraps(read)
        async def as_page(**given: Any) -> Response:
            context: RequestContext = given["context"]
            try:
                return await context.in_thread(respond_with_page, context.request, template, await read(**given))
            finally:
                await context.end_large()

        declared = needs(kind, *more, **by_parameter)
        json_path = "/overview.json" if path == "/" else f"{path}.json"
        # The JSON first: a parameter at the end of the path would match the suffix, too.
        router.add_api_route(json_path, as_json, methods=["GET"], openapi_extra=declared)
        router.add_api_route(path, as_page, methods=["GET"], openapi_extra=declared)
        return read

    return register


def form(model: type[_Model]) -> Any:
    """Return the dependency of an endpoint on the form that is its body."""

    async def read(request: Request) -> _Model:
        try:
            return model.model_validate(await request.json())
        except ValidationError as error:
            raise RequestValidationError([each | {"loc": ("body", *each["loc"])} for each in error.errors()]) from None

    return Depends(read)


async def models(context: RequestContext, model: type[_Model], rows: Sequence[ReadTableRow]) -> list[_Model]:
    """Return rows as models. That parses their JSON, which may take long."""
    await context.begin_large(sum(row.size for row in rows))
    return await context.in_thread(list, map(model.model_validate, rows))


async def wait_for_written(
    context: RequestContext, projections: Sequence[str] = READ_TABLES, at_least: int = 0, *, is_resolved: bool = False
) -> None:
    """Wait until the read tables hold what was written through this server, but not for long.

    If they are behind, the page says so: it is most needed then.
    """
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await context.caught_up(projections, at_least, is_resolved=is_resolved)
    except (TimeoutError, NotCaughtUp):
        context.request.state.is_behind = True


def redirect(context: RequestContext, path: str) -> Response:
    """Return the response that leads to another page of the console, after a change.

    Args:
        path: Of the page, below the root of the console.
    """
    return RedirectResponse(f"{root_of(context.request)}{path}", 303)


def error_page(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return the page that describes an error."""
    data = {"status": status, "detail": detail}
    return respond_with_page(request, "error.html", data, status=status, headers=headers)


def _error_response(scope: Scope, error: Rejected | EventStoreError) -> Response:
    request = Request(scope)
    if isinstance(error, NoToken | BadToken) and not _is_for_program(scope):
        return _sign_in(request, error)
    if _is_for_program(scope):
        return problem_of(error)
    return error_page(request, status_of(error), str(error), headers_of(error))


def _sign_in(request: Request, error: Rejected) -> Response:
    """Return the way to sign in; it comes back to the page that was requested."""
    wanted = request.scope["path"].removeprefix(f"{ROOT}/")
    query = f"?{request.url.query}" if request.url.query else ""
    failed = "&failed=1" if isinstance(error, BadToken) else ""
    url = f"{root_of(request)}sign-in?next={quote(wanted + query, safe='')}{failed}"
    if "hx-request" in request.headers:  # a part of a page cannot be replaced by the form
        return Response(status_code=401, headers={"HX-Redirect": url})
    return RedirectResponse(url, 303)


def _is_for_program(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.endswith((".json", "/live"))


async def redirect_to_root() -> Response:
    """Lead to the overview."""
    return RedirectResponse("console/", 308)


async def not_found(request: Request) -> Response:
    """Say that there is no such page."""
    raise HTTPException(404, f"there is no page {request.url.path}")
