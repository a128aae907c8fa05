"""Signing in and out, preferences, static files, and reports of browsers."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agent_manager.console.pages import ROOT, ConsoleRoute
from agent_manager.console.rendering import LANGUAGES, THEMES, respond_with_page, static_files
from agent_manager.console.session import (
    LANGUAGE,
    THEME,
    TOKEN,
    checked_token,
    delete_cookie,
    form_fields,
    set_cookie,
)
from agent_manager.server.authorization import Data, needs

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)
_OPEN = needs(Data.STATUS)


@router.get("/sign-in", openapi_extra=_OPEN)
async def show_form(request: Request, next: str = "", failed: bool = False) -> Response:
    """Show the form; forget a token that was refused."""
    response = respond_with_page(
        request, "sign_in.html", {"next": next, "failed": failed}, status=401 if failed else 200
    )
    if failed:
        delete_cookie(response, TOKEN)
    return response


@router.post("/sign-in", openapi_extra=_OPEN)
async def sign_in(request: Request) -> Response:
    """Keep a token in the cookie, and lead to the page that was requested, which checks the token."""
    fields = await form_fields(request)
    token = checked_token(str(fields.get("token", "")))
    response = _back(fields)
    set_cookie(request, response, TOKEN, token)
    return response


@router.post("/sign-out", openapi_extra=_OPEN)
async def sign_out(request: Request) -> Response:
    """Forget the token."""
    response = RedirectResponse("sign-in", 303)
    delete_cookie(response, TOKEN)
    return response


@router.post("/preferences", openapi_extra=_OPEN)
async def set_preferences(request: Request) -> Response:
    """Keep the theme and the language in cookies."""
    fields = await form_fields(request)
    response = _back(fields)
    for name, values, cookie in (("theme", THEMES, THEME), ("language", LANGUAGES, LANGUAGE)):
        if fields.get(name) in values:
            set_cookie(request, response, cookie, fields[name])
    return response


def _back(fields: dict[str, str]) -> Response:
    """Return the way to the page that a form names; it never leads to another site, because the URL is relative."""
    return RedirectResponse(f"./{fields.get('next', '')}", 303)


@router.post("/csp-report", status_code=204, openapi_extra=_OPEN)
async def count_csp_report(request: Request) -> Response:
    """Count a report of a browser that the Content-Security-Policy has blocked something. Anybody may send one."""
    request.app.state.server_context.metrics.count_csp_report()
    return Response(status_code=204)


@router.get("/static/{name}", openapi_extra=_OPEN)
async def static_file(name: str) -> Response:
    """Return a static file. Its URL in pages has its hash, so a browser may keep it."""
    if name not in static_files():
        raise HTTPException(404, f"there is no file {name}")
    content, media_type, _ = static_files()[name]
    return Response(content, media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"})
