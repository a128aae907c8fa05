"""The demo's envelope: JSON-RPC 2.0 in the body of a POST, with an HTTP status that says how it went."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.http.admission import Handler, WalledRoute
from agent_manager.http.bodies import Frame
from agent_manager.http.idempotency import Kept
from agent_manager.http.models.common import Json
from agent_manager.http.problems import headers_of, members, status_of
from agent_manager.http.refusals import Refused
from eventstore.errors import EventStoreError, InputError, printable

PARSE_ERROR, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32602, -32603
_CODES = {400: PARSE_ERROR, 413: INVALID_PARAMS, 422: INVALID_PARAMS, 404: INVALID_PARAMS, 409: INVALID_PARAMS}


class RpcRoute(WalledRoute):
    """An endpoint whose errors are those of JSON-RPC, under the status that they have everywhere here."""

    def get_route_handler(self) -> Handler:
        """Answers, and tells errors."""
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except EventStoreError as error:
                return self.refusal(request, error)
            except HTTPException as error:
                return failure(request, error.status_code, str(error.detail))

        return handle_errors

    async def repeated(self, request: Request, kept: Kept) -> Response:
        """The result of the first call, as the answer to this one."""
        await read_call(request)
        return success(request, json.loads(kept.body)["result"])

    def refusal(self, request: Request, error: Refused | EventStoreError) -> Response:
        """The error as JSON-RPC tells it."""
        if isinstance(error, Refused):
            return failure(request, error.status, str(error), error.headers, type=error.title)
        more = {"type": type(error).__name__, **members(error)}
        return failure(request, status_of(error), str(error), headers_of(error), **more)


async def read_call(request: Request) -> Json:
    """The body of a call; empty where there is none. Its id is kept for the answer.

    Raises:
        HTTPException: it is no JSON.
        InputError: it is no object.
    """
    body = await request.body()
    if not body.strip():
        return {}
    try:
        call = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {printable(str(error))}") from None
    if not isinstance(call, dict):
        raise InputError("the body is no JSON object: send jsonrpc, id, method and params")
    given = call.get("id")
    request.state.call_id = given if type(given) in (int, str) else None
    return call


def success(request: Request, result: Any) -> Response:
    """The answer that holds a result."""
    frame = frame_of(request)
    return Response(frame.before + to_json(result) + frame.after, media_type="application/json")


def failure(
    request: Request, status: int, message: str, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """The answer that says what was wrong."""
    error = {"code": _CODES.get(status, INTERNAL_ERROR), "message": printable(message, 2000), "data": more or None}
    body = {"jsonrpc": "2.0", "id": _call_id(request), "result": None, "error": error}
    return Response(json.dumps(body).encode(), status, headers, "application/json")


def frame_of(request: Request) -> Frame:
    """What stands before and after a result."""
    call_id = json.dumps(_call_id(request)).encode()
    return Frame(b'{"jsonrpc":"2.0","id":' + call_id + b',"result":', b',"error":null}')


def _call_id(request: Request) -> int | str | None:
    return getattr(request.state, "call_id", None)
