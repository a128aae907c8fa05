"""Errors as HTTP responses: every error has a status and is sent as ``application/problem+json`` (RFC 9457).

Three kinds of errors become responses:

- :class:`Rejected`: the server rejects the request, whatever it asks for::

      Rejected                   400  or another status; without a class of their own: what one place checks
      ├── NoToken                401  the request needs a bearer token and has none
      ├── BadToken               401  the token is not valid
      ├── NotAllowed             403  the token lacks a scope
      ├── TooLarge               413  the body is larger than the limit
      ├── UnsupportedMediaType   415  the body is not sent as JSON
      ├── TooMany                429  the tenant or the caller exceeds its share
      └── Busy                   503  the server has reached its limit

- :class:`~eventstore.errors.EventStoreError`: the store refuses or fails; :data:`STATUSES` maps its types to statuses.
- ``RequestValidationError``: FastAPI finds the input invalid.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import Scope

from agent_manager.auth.identity import KeysUnavailable
from agent_manager.errors import AgentError
from agent_manager.logs import request_id
from eventstore.errors import (
    ConflictError,
    ConnectionLost,
    ConversationIsDeleted,
    DiskFull,
    EmbeddedServerError,
    EventStoreError,
    EventTooLarge,
    Forbidden,
    InputError,
    InvalidCursor,
    InvalidEvent,
    NotCaughtUp,
    NotFound,
    OnLegalHold,
    ProjectionChanged,
    RetryableError,
    SchemaError,
    ServerUnreachable,
    StatementTimeout,
    StoreClosed,
    WrongExpectedVersion,
    printable,
)


class Rejected(Exception):
    """A request that the server rejects. The text says why, and what to do.

    Attributes:
        status: The status of the response.
        reason: The label of the metric ``eventstore_http_rejections_total``.
        headers: Headers of the response.
    """

    status = 400
    reason = ""

    def __init__(
        self, detail: str, reason: str = "", headers: dict[str, str] | None = None, *, status: int | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason or self.reason
        self.headers = headers or {}
        self.status = status or self.status


class NoToken(Rejected):
    """The request has no bearer token, but needs one."""

    status, reason = 401, "no_token"

    def __init__(self) -> None:
        super().__init__(
            "a token is needed: send 'Authorization: Bearer …'; eventstore keys add NAME makes one",
            headers={"WWW-Authenticate": 'Bearer realm="eventstore"'},
        )


class BadToken(Rejected):
    """The token is not valid. The response does not say why."""

    status, reason = 401, "bad_token"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="eventstore", error="invalid_token"'})


class NotAllowed(Rejected):
    """The token lacks a scope."""

    status, reason = 403, "scope"

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"this token does not allow the request: the scope {scope} is needed",
            headers={"WWW-Authenticate": f'Bearer realm="eventstore", error="insufficient_scope", scope="{scope}"'},
        )


class TooLarge(Rejected):
    """The body is larger than the limit."""

    status, reason = 413, "large_body"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the body takes more than {limit:,} bytes: send less at a time, "
            "or raise EVENTSTORE_MAX_CONTENT_BYTES, which determines the limit"
        )


class UnsupportedMediaType(Rejected):
    """The body has a media type or an encoding that the server does not read."""

    status, reason = 415, "media_type"


class TooMany(Rejected):
    """The tenant or the caller exceeds its share of a limit."""

    status = 429

    def __init__(self, detail: str, reason: str, seconds: int = 1) -> None:
        super().__init__(detail, reason, {"Retry-After": str(seconds)})


class Busy(Rejected):
    """The server has reached one of its limits."""

    status = 503

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(detail, reason, {"Retry-After": "1"})


STATUSES: tuple[tuple[type[EventStoreError], int], ...] = (
    (StoreClosed, 503),
    (EventTooLarge, 413),
    (InvalidCursor, 400),
    (InputError, 422),
    (NotFound, 404),
    (Forbidden, 403),
    (ConflictError, 409),
    (RetryableError, 503),
    (NotCaughtUp, 503),
    (ServerUnreachable, 503),
    (ConnectionLost, 503),
    (EmbeddedServerError, 503),
    (SchemaError, 503),
    (KeysUnavailable, 503),
    (DiskFull, 507),
    (AgentError, 502),
    (EventStoreError, 500),
)
"""The statuses of the store's errors; the first type that an error is an instance of decides."""

_RETRY_SECONDS = {StatementTimeout: 5, ProjectionChanged: 0, RetryableError: 0}
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # RFC 9110's; Python 3.11 has older ones
_MAX_DETAIL = 2000


def problem(status: int, detail: str, title: str = "", headers: dict[str, str] | None = None, **more: Any) -> Response:
    """Return a response that describes an error.

    Args:
        title: Identifies the kind of error for programs; the title of the status by default.
        more: Further members of the problem.
    """
    title = title or _title_of_status(status)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|\s+", "-", title)  # of WrongExpectedVersion, or of "Not Found"
    body = {
        "type": f"urn:eventstore:{words.lower()}",
        "title": title,
        "status": status,
        "detail": printable(detail, _MAX_DETAIL),
        **more,
        **request_member(),
    }
    # json.dumps escapes to ASCII, because the quoted input may hold lone surrogates, which have no UTF-8 encoding.
    return Response(json.dumps(body).encode(), status, headers, "application/problem+json")


def request_member() -> dict[str, str]:
    """Return the member of an error that names the request in the server's log; nothing outside of requests."""
    identifier = request_id.get()
    return {"request_id": identifier} if identifier else {}


def problem_of(error: Rejected | EventStoreError) -> Response:
    """Return the response that describes an error."""
    return problem(status_of(error), str(error), title_of(error), headers_of(error), **members_of(error))


def status_of(error: Rejected | EventStoreError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, Rejected):
        return error.status
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def title_of(error: Rejected | EventStoreError) -> str:
    """Return what identifies the kind of an error for programs."""
    return _title_of_status(error.status) if isinstance(error, Rejected) else type(error).__name__


def _title_of_status(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase


def headers_of(error: Rejected | EventStoreError) -> dict[str, str]:
    """Return the headers for an error, such as ``Retry-After`` if a retry may succeed."""
    if isinstance(error, Rejected):
        return error.headers
    if status_of(error) != 503:
        return {}
    seconds = next((seconds for kind, seconds in _RETRY_SECONDS.items() if isinstance(error, kind)), 1)
    return {"Retry-After": str(seconds)}


def members_of(error: Rejected | EventStoreError) -> dict[str, Any]:
    """Return what programs may need of an error beside its text."""
    if isinstance(error, WrongExpectedVersion):
        return {"expected_version": error.expected, "actual_version": error.actual}
    if isinstance(error, OnLegalHold):
        return {"hold": str(error.hold_id)}
    if isinstance(error, ConversationIsDeleted):
        return {"conversation_id": str(error.conversation_id)}
    if isinstance(error, EventTooLarge):
        return {"bytes": error.size, "limit_bytes": error.limit}
    if isinstance(error, InvalidEvent):
        return {"path": printable(error.path)}
    return {}


ERROR_RESPONSE = "eventstore.error_response"
"""The key in a request's ASGI scope of a function of the scope and an error, used instead of :func:`problem_of`."""


def error_response(scope: Scope, error: Rejected | EventStoreError) -> Response:
    """Return the response that describes an error, in the format of the request's route."""
    if ERROR_RESPONSE not in scope:
        return problem_of(error)
    response: Response = scope[ERROR_RESPONSE](scope, error)
    return response


_MAX_FAULTS = 20


def problem_of_validation(error: RequestValidationError) -> Response:
    """Return 422 with a list of the invalid values."""
    faults = [_fault(fault) for fault in error.errors()[:_MAX_FAULTS]]
    detail = "; ".join(f"{fault['name'] or fault['where']}: {fault['message']}" for fault in faults)
    return problem(422, detail, errors=faults)


def _fault(fault: Any) -> dict[str, str]:
    where, *path = fault["loc"]
    name = ".".join(str(part) for part in path)
    message = "is unknown" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
    return {"where": str(where), "name": printable(name), "message": printable(message)}
