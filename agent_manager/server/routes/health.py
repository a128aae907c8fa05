"""Liveness and readiness, for process supervisors and load balancers."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request

from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import ServerContext
from agent_manager.server.read_your_writes import READ_TABLES
from agent_manager.server.routes.declarations import errors
from agent_manager.server.schemas.common import Out, Position
from eventstore import __version__
from eventstore.errors import StoreClosed
from eventstore.read import horizon
from projections import applied_position, select_projections

router = APIRouter(tags=["health"], route_class=AuthorizedRoute)


class HealthOut(Out):
    """The process responds."""

    status: Literal["ok"] = "ok"
    version: str = Field(default=__version__, description="The version of the server's program.")


class ReadyOut(Out):
    """The server can work; how far the log and the read tables are."""

    status: Literal["ready"] = "ready"
    horizon: Position | None = Field(
        None, description="The position up to which the log is final. Null if the server requires tokens."
    )
    applied: Position | None = Field(
        None, description="The position that the read tables hold. Null if the server requires tokens."
    )


@router.get("/health", response_model=HealthOut, openapi_extra=needs(Data.STATUS))
async def health() -> HealthOut:
    """Report that the process responds. Nothing else is checked."""
    return HealthOut()


@router.get("/ready", response_model=ReadyOut, responses=errors(), openapi_extra=needs(Data.STATUS))
async def ready(request: Request) -> ReadyOut:
    """Report that PostgreSQL responds; 503 if it does not, or if this server is about to close."""
    server_context: ServerContext = request.app.state.server_context
    if server_context.closing.is_set():
        raise StoreClosed
    store = server_context.store
    with server_context.limits.requests.one():
        final = await horizon(store.log(store.caller()))
        applied = await applied_position(store, select_projections(list(READ_TABLES)))
    if not server_context.authenticator.is_own(request.headers):
        return ReadyOut(horizon=None, applied=None)  # positions tell how much all tenants write
    return ReadyOut(horizon=final, applied=applied)
