"""Errors as answers: every error of the store has a status, and is told as RFC 9457 asks (application/problem+json)."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import Response

from agent_manager.agents.errors import AgentError
from agent_manager.http.refusals import Refused
from agent_manager.identity.errors import KeysUnavailable
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
    ProjectionChanged,
    RetryableError,
    SchemaError,
    ServerUnreachable,
    StatementTimeout,
    StoreClosed,
    WrongExpectedVersion,
    printable,
)

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
"""The status of an error is that of the first of these kinds that it is of."""

_RETRY_SECONDS = {StatementTimeout: 5, ProjectionChanged: 0, RetryableError: 0}
_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}
_LONGEST = 2000


def status_of(error: EventStoreError) -> int:
    """The HTTP status that tells of the error."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def problem(
    status: int, detail: str, *, kind: str = "", headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """An answer that says what was wrong.

    Args:
        kind: a word that programs may tell it by; the title of the status if left out.
        more: further members.
    """
    title = kind or _TITLES.get(status, "Error")
    body = {
        "type": f"urn:eventstore:{word(title)}",
        "title": title,
        "status": status,
        "detail": printable(detail, _LONGEST),
        **more,
    }
    # Escaped to ASCII: what it quotes may be no Unicode text at all.
    content = json.dumps(body).encode()
    return Response(content, status, headers, "application/problem+json")


def problem_of(error: EventStoreError) -> Response:
    """The same for an error of the store."""
    return problem(status_of(error), str(error), kind=type(error).__name__, headers=headers_of(error), **members(error))


def problem_of_refusal(refused: Refused) -> Response:
    """The same for what is refused whatever was asked."""
    return problem(refused.status, str(refused), kind=refused.title, headers=refused.headers)


def headers_of(error: EventStoreError) -> dict[str, str]:
    """When to try again, where that may help."""
    if status_of(error) != 503:
        return {}
    seconds = next((seconds for kind, seconds in _RETRY_SECONDS.items() if isinstance(error, kind)), 1)
    return {"Retry-After": str(seconds)}


def members(error: EventStoreError) -> dict[str, Any]:
    """What programs may want to know of the error beside its text."""
    if isinstance(error, WrongExpectedVersion):
        return {"expected_version": error.expected, "actual_version": error.actual}
    if isinstance(error, ConversationIsDeleted):
        return {"conversation_id": str(error.conversation_id)}
    if isinstance(error, EventTooLarge):
        return {"bytes": error.size, "limit_bytes": error.limit}
    if isinstance(error, InvalidEvent):
        return {"path": printable(error.path)}
    return {}


def word(title: str) -> str:
    """A title or the name of a class as a word of a URN: ``WrongExpectedVersion`` is ``wrong-expected-version``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|\s+", "-", title).lower()
