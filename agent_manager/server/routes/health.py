"""Liveness, readiness and metrics, for process supervisors, load balancers and monitoring."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, ServerContext
from agent_manager.server.problems import Rejected
from agent_manager.server.read_your_writes import READ_TABLES
from agent_manager.server.routes.declarations import errors
from agent_manager.server.schemas.common import Out, Position
from eventstore import EventStore, __version__
from eventstore.errors import PermissionDenied, ServerError, StoreClosed
from eventstore.read import horizon
from projections import applied_position, select_projections
from projections.status import lag_seconds_at

STANDBY_SECONDS = 1.0
"""Seconds that a report waits for the standby that serves reads: less than the time limit of usual probes."""

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
        None,
        description="The position that the read tables hold, those of the standby if reads go to one. Null if the "
        "server requires tokens, or the standby does not answer.",
    )
    lag_seconds: float | None = Field(
        None,
        description="The age of the oldest event that the read tables do not hold; 0 if there is none. Null if "
        "`applied` is null, or the server's login has no worker's role.",
    )


@router.get("/health", response_model=HealthOut, openapi_extra=needs(Data.STATUS))
async def health() -> HealthOut:
    """Report that the process responds. Nothing else is checked."""
    return HealthOut()


@router.get("/ready", response_model=ReadyOut, responses=errors(), openapi_extra=needs(Data.STATUS))
async def ready(request: Request) -> ReadyOut | Response:
    """Report that the server can do its work; 503 if it cannot, with the reason.

    It cannot while the schema does not fit this server, all connections of a pool are in use, PostgreSQL does not
    respond, the read tables are too far behind the log, or the server is about to stop. A standby that reads go to is
    not necessary: appends do not need it.
    """
    server_context: ServerContext = request.app.state.server_context
    if server_context.closing.is_set():
        raise StoreClosed
    is_own = server_context.authenticator.is_own(request.headers)
    if not_ready := await server_context.readiness.check():
        return not_ready.response(shows_cause=is_own)
    if not is_own:
        return ReadyOut(horizon=None, applied=None, lag_seconds=None)  # positions tell how much all tenants write
    store = server_context.store
    with server_context.limits.requests.one():
        final = await horizon(store.log(store.caller()))
        applied, lag_seconds = await _applied(store)
    return ReadyOut(horizon=final, applied=applied, lag_seconds=lag_seconds)


async def _applied(store: EventStore) -> tuple[int | None, float | None]:
    """Return the position that reads find, and the age of the oldest event above it; None if they are not known."""
    standby, applied = store.connections.standby, None
    with nullcontext() if standby is None else suppress(ServerError, TimeoutError):
        async with asyncio.timeout(None if standby is None else STANDBY_SECONDS):
            applied = await applied_position(store, select_projections(list(READ_TABLES)))
    if applied is not None:
        with suppress(PermissionDenied):  # only the projector's role sees the events of all tenants
            return applied, await lag_seconds_at(store, applied)
    return applied, None


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=errors(),
    openapi_extra=needs(Data.METRICS),
)
async def metrics(context: CurrentContext) -> Response:
    """Return the metrics of this process and of the database, in the text format of Prometheus.

    They count what all tenants do. So if tokens are required, the key must be of the server's own tenant
    (EVENTSTORE_TENANT). The same metrics are on a port of their own, without a token: EVENTSTORE_METRICS_PORT.
    """
    if context.caller.tenant != context.store.tenant:
        detail = "metrics count what all tenants do: send a key of the server's own tenant (EVENTSTORE_TENANT)"
        raise Rejected(detail, "scope", status=403)
    return await context.server_context.metrics.response()
