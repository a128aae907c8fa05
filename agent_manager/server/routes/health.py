"""Whether the process answers, and whether it can do its work: for whatever starts and watches it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import server_context_of
from agent_manager.server.lookups import READ_TABLES
from agent_manager.server.routes.openapi import errors
from agent_manager.server.schemas.search_statistics_agents import HealthOut, ReadyOut
from eventstore.errors import StoreClosed
from eventstore.read import horizon
from projections import applied_position, named

router = APIRouter(tags=["health"], route_class=AuthorizedRoute)


@router.get("/health", response_model=HealthOut, openapi_extra=needs(Data.STATUS))
async def health() -> HealthOut:
    """The process answers. It asks nobody else."""
    return HealthOut()


@router.get("/ready", response_model=ReadyOut, responses=errors(), openapi_extra=needs(Data.STATUS))
async def ready(request: Request) -> ReadyOut:
    """PostgreSQL answers; 503 where it does not, or where this server is about to end."""
    server_context = server_context_of(request)
    if server_context.closing.is_set():
        raise StoreClosed
    store = server_context.store
    with server_context.limits.requests.one():
        final, applied = (
            await horizon(store.log(store.caller())),
            await applied_position(store, named(list(READ_TABLES))),
        )
    if not server_context.gate.is_own(request.headers):
        return ReadyOut(horizon=None, applied=None)  # how much there is, is not for everybody
    return ReadyOut(horizon=final, applied=applied)
