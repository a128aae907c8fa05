"""What the answers have in common, for the OpenAPI: each endpoint names the errors that it may give."""

from __future__ import annotations

from typing import Any, TypeAlias

from agent_manager.http.models.common import Problem

_MEANINGS = {
    304: "As it was when the ETag was given (If-None-Match).",
    400: "The request cannot be read.",
    404: "There is no such thing.",
    409: "It contradicts what the log holds. Nothing was written.",
    413: "It is larger than the limit. Nothing was written.",
    422: "A value cannot be used. Nothing was written.",
    502: "The agent cannot be reached.",
    503: "The server of the store is away, or the read tables are behind. The same request may succeed later.",
}
NOT_FOUND, CONFLICT, TOO_LARGE, BAD_GATEWAY = 404, 409, 413, 502


Answers: TypeAlias = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Answers:
    """The answers other than success."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _MEANINGS[status], "content": content} for status in sorted({400, 422, 503, *statuses})
    }


def read_errors(*statuses: int) -> Answers:
    """The same of a read, which may be as it was."""
    return {304: {"description": _MEANINGS[304]}, **errors(*statuses)}


def problem_schema() -> dict[str, Any]:
    """The schemas that :func:`errors` refers to."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), "Problem": schema}
