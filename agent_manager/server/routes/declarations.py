"""The declarations of endpoints: the data that they need, and their responses other than success."""

from __future__ import annotations

from typing import Any, TypeAlias

from agent_manager.server.authorization import Data, needs
from agent_manager.server.schemas.common import Problem

_MEANINGS = {
    304: "Not changed since the ETag in If-None-Match.",
    400: "The request cannot be parsed.",
    401: "A token is needed, or the one sent is not valid.",
    403: "The token or the conversation's owner does not allow it. Nothing was written.",
    404: "It does not exist, or is not visible to you.",
    408: "The body did not arrive in time.",
    409: "It conflicts with what the log holds. Nothing was written.",
    413: "It is larger than the limit. Nothing was written.",
    415: "The body is not sent as JSON. Nothing was written.",
    422: "A value is not valid. Nothing was written.",
    429: "The key or the tenant exceeds its limit; Retry-After says when to retry.",
    502: "The agent cannot be reached.",
    503: "The database or the server is unavailable or busy, or the read tables are behind. Retry later.",
}
NOT_FOUND, CONFLICT, TOO_LARGE, BAD_GATEWAY = 404, 409, 413, 502
_ALWAYS = {400, 401, 403, 422, 429, 503}

Responses: TypeAlias = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Responses:
    """Return the error responses of an endpoint: those that every endpoint may return, and the given ones."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    declared = {*_ALWAYS, *statuses}
    if TOO_LARGE in statuses:  # an endpoint with a body
        declared |= {408, 415}
    return {status: {"description": _MEANINGS[status], "content": content} for status in sorted(declared)}


NOT_MODIFIED: Responses = {304: {"description": _MEANINGS[304]}}


def reads(kind: Data, *statuses: int, **by_parameter: Data) -> dict[str, Any]:
    """Return the options of a route that reads: the data (see :func:`needs`), and its responses other than success."""
    return {"openapi_extra": needs(kind, **by_parameter), "responses": NOT_MODIFIED | errors(*statuses)}


def writes(kind: Data, *statuses: int) -> dict[str, Any]:
    """Return the options of a route that writes: the data (see :func:`needs`), and its errors."""
    return {"openapi_extra": needs(kind), "responses": errors(*statuses)}


def problem_schema() -> dict[str, Any]:
    """Return the schemas that :func:`errors` refers to."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), "Problem": schema}
