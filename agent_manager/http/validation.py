"""What FastAPI finds wrong with a request, told like every other error."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from agent_manager.http.problems import problem
from eventstore.errors import printable

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
