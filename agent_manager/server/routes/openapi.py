"""What the answers have in common, for the OpenAPI: each endpoint names the errors that it may give."""

from __future__ import annotations

from typing import Any, TypeAlias

from agent_manager.server.schemas.common import Problem

_MEANINGS = {
    304: "As it was when the ETag was given (If-None-Match).",
    400: "The request cannot be read.",
    401: "A token is needed, or the one sent is not valid.",
    403: "The token does not allow it, or it is not yours to change. Nothing was written.",
    404: "There is no such thing, or not for you.",
    409: "It contradicts what the log holds. Nothing was written.",
    408: "The body did not come in time.",
    413: "It is larger than the limit. Nothing was written.",
    422: "A value cannot be used. Nothing was written.",
    429: "More than one key may ask for; Retry-After says when to come again.",
    502: "The agent cannot be reached.",
    503: "The server of the store is away or busy, or the read tables are behind. The same request may succeed later.",
}
NOT_FOUND, CONFLICT, TOO_LARGE, BAD_GATEWAY = 404, 409, 413, 502
_ALWAYS = {400, 401, 403, 422, 429, 503}


Answers: TypeAlias = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Answers:
    """The answers other than success."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    told = {*_ALWAYS, *statuses, *({408} if TOO_LARGE in statuses else ())}  # what may be too large may be too slow
    return {status: {"description": _MEANINGS[status], "content": content} for status in sorted(told)}


def read_errors(*statuses: int) -> Answers:
    """The same of a read, which may be as it was."""
    return {304: {"description": _MEANINGS[304]}, **errors(*statuses)}


def problem_schema() -> dict[str, Any]:
    """The schemas that :func:`errors` refers to."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), "Problem": schema}
