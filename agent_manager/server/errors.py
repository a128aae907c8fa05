"""Errors as responses: every error has a status and is sent as application/problem+json (RFC 9457).

::

    Refused
    ├── NoToken        401  no bearer token, where one is needed
    ├── BadToken       401  a token that is not valid
    ├── NotAllowed     403  a token that does not allow this
    ├── TooSlow        408  a body that does not come
    ├── TooLarge       413  a body that is larger than the limit
    ├── TooMany        429  more than one key may have
    └── Busy           503  more than the server takes
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from agent_manager.auth.identity import KeysUnavailable
from agent_manager.errors import AgentError
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

# What is refused, whatever was asked: too much, too fast, too slow, or by somebody who may not


class Rejected(Exception):
    """A request that is refused. Its text says why, and what to do.

    Attributes:
        status: of the answer.
        title: a word that programs may tell it by.
        reason: the same for the counters.
        headers: of the answer.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    reason: str = ""

    def __init__(self, said: str, reason: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(said)
        self.reason = reason or self.reason
        self.headers = headers or {}


class NoToken(Rejected):
    """There is no bearer token."""

    status, title, reason = 401, "Unauthorized", "no token"

    def __init__(self) -> None:
        super().__init__(
            "a token is needed: send 'Authorization: Bearer …'; eventstore keys add makes one",
            headers={"WWW-Authenticate": 'Bearer realm="eventstore"'},
        )


class BadToken(Rejected):
    """The token is not valid. Nothing tells why."""

    status, title, reason = 401, "Unauthorized", "bad token"

    def __init__(self, said: str) -> None:
        super().__init__(said, headers={"WWW-Authenticate": 'Bearer realm="eventstore", error="invalid_token"'})


class NotAllowed(Rejected):
    """The token does not allow this."""

    status, title, reason = 403, "Forbidden", "scope"

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"this token does not allow it: the scope {scope} is needed",
            headers={"WWW-Authenticate": f'Bearer realm="eventstore", error="insufficient_scope", scope="{scope}"'},
        )


class TooSlow(Rejected):
    """The body does not come."""

    status, title, reason = 408, "Request Timeout", "slow body"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the body did not come within {seconds:g} seconds: send less at a time, or raise EVENTSTORE_BODY_SECONDS",
            headers={"Connection": "close"},
        )


class TooLarge(Rejected):
    """The body is larger than the limit."""

    status, title, reason = 413, "Content Too Large", "large body"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the body takes more than {limit:,} bytes: send less at a time, "
            "or raise EVENTSTORE_MAX_CONTENT_BYTES, from which the limit comes"
        )


class TooMany(Rejected):
    """More than one key may have."""

    status, title = 429, "Too Many Requests"

    def __init__(self, said: str, reason: str, seconds: int = 1) -> None:
        super().__init__(said, reason, {"Retry-After": str(seconds)})


class Busy(Rejected):
    """More than the server takes."""

    status, title = 503, "Service Unavailable"

    def __init__(self, said: str, reason: str) -> None:
        super().__init__(printable(said), reason, {"Retry-After": "1"})


# Errors as answers: every error of the store has a status, and is told as RFC 9457 asks (application/problem+json)

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


def problem_of_refusal(refused: Rejected) -> Response:
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


# What FastAPI finds wrong with a request, told like every other error

_MOST = 20
_UNREADABLE = ("json_invalid", "json_type")


def refused(error: RequestValidationError) -> Response:
    """400 for a body that is no JSON, 422 for values that cannot be used; names each."""
    found = error.errors()
    if any(each["type"] in _UNREADABLE for each in found):
        reason = next(
            (each.get("ctx") or {}).get("error", each["msg"]) for each in found if each["type"] in _UNREADABLE
        )
        return problem(400, f"the body is no JSON: {reason}: send a JSON object in UTF-8")
    wrong = [_wrong(each) for each in found[:_MOST]]
    said = "; ".join(f"{each['name'] or each['where']}: {each['message']}" for each in wrong)
    return problem(422, said, errors=wrong)


def _wrong(each: Any) -> dict[str, str]:
    where, *path = each["loc"]
    name = ".".join(str(part) for part in path)
    message = "is unknown" if each["type"] == "extra_forbidden" else each["msg"].removeprefix("Value error, ")
    return {"where": str(where), "name": printable(name), "message": printable(message)}
