"""The session of a browser: the cookie with the token, protection against forged requests, and preferences.

The token of the sign-in form is kept in a cookie that scripts cannot read (``HttpOnly``), that pages of other sites
cannot make the browser send (``SameSite=Strict``), and that the browser sends only below the path of the console: it
names no path, so it gets that of the sign-in form, whatever prefix a proxy adds. A route of the console reads it as the
header ``Authorization``; the API never does, so no page can use the cookie to call the API.

Every form that changes something also contains a tag of the session, which only the server can compute (CSRF).
"""

from __future__ import annotations

import re
from hashlib import sha256
from secrets import compare_digest
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from agent_manager.server.json_request import JsonRequest
from agent_manager.server.problems import Rejected, UnsupportedMediaType

TOKEN, THEME, LANGUAGE = "console_token", "console_theme", "console_language"
CSRF = "csrf"
"""The field of forms with the tag of the session."""
_STORABLE = re.compile(r"[A-Za-z0-9._~+/=-]{1,3800}")
"""A token that a cookie can hold; browsers keep cookies of up to 4096 bytes."""
_MAX_FIELDS = 100


def authorize(scope: Scope) -> None:
    """Let the cookie's token stand in the header ``Authorization`` of a request that has none."""
    request = Request(scope)
    token = request.cookies.get(TOKEN, "")
    if "authorization" not in request.headers and _STORABLE.fullmatch(token):
        scope["headers"] = [*scope["headers"], (b"authorization", f"Bearer {token}".encode())]


def csrf_tag(request: Request) -> str:
    """Return the tag of the session, which forms contain."""
    session = sha256(request.headers.get("authorization", "").encode()).digest()
    tag: str = request.app.state.server_context.sealing.tag(CSRF, session)
    return tag


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Set a cookie that lasts as long as the browser runs."""
    is_secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
    response.set_cookie(name, value, path=None, secure=is_secure, httponly=True, samesite="strict")


def delete_cookie(response: Response, name: str) -> None:
    """Delete a cookie."""
    response.set_cookie(name, "", max_age=0, path=None, httponly=True, samesite="strict")


def checked_token(text: str) -> str:
    """Return the token that was pasted.

    Raises:
        Rejected: A cookie cannot hold it.
    """
    token = "".join(text.split()).removeprefix("Bearer")
    if not _STORABLE.fullmatch(token):
        raise Rejected("this is neither a key nor a JWT: paste the key, es_…, or the JWT whole", "token", status=422)
    return token


class FormRequest(JsonRequest):
    """A request whose body is a form of the console."""

    async def json(self) -> Any:
        """Return the fields by name; lists for names that end with ``[]``.

        Raises:
            UnsupportedMediaType: It is not sent as a form.
            Rejected: It does not come from a page of this session.
        """
        if not hasattr(self, "_json"):
            fields = await form_fields(self)
            if not compare_digest(str(fields.pop(CSRF, "")).encode(), csrf_tag(self).encode()):
                raise Rejected("the form is not of this session: reload the page and send it again", CSRF, status=403)
            self._json = fields
        return self._json


async def form_fields(request: Request) -> dict[str, Any]:
    """Return the fields of a form by name.

    Raises:
        UnsupportedMediaType: It is not sent as a form.
        Rejected: It is not UTF-8, or has too many fields.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise UnsupportedMediaType("a form of the console is sent as application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            (await request.body()).decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        raise Rejected("the form is not valid UTF-8, or has too many fields", "form") from None
    if any("\0" in name + value for name, value in pairs):
        raise Rejected("the form has a NUL character, which PostgreSQL cannot store: remove it", "form", status=422)
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name.endswith("[]"):
            before = fields.get(name.removesuffix("[]"))
            fields[name.removesuffix("[]")] = [*before, value] if isinstance(before, list) else [value]
        else:
            fields[name] = value
    return fields
