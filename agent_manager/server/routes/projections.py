"""Projections: how far they are, pausing and resuming."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.operators import check_operator
from agent_manager.server.routes.declarations import NOT_FOUND, errors, writes
from agent_manager.server.schemas.common import Out, PageOut, Position
from eventstore import EventStore
from projections import Projection, load_projections, pause, resume, select_projections

router = APIRouter(prefix="/projections", tags=["projections"], route_class=AuthorizedRoute)


class ProjectionOut(Out):
    """The progress of the read tables of a projection."""

    name: str
    position: Position
    lag_events: int = Field(description="Events that are not applied; from 10,000 on an upper bound.")
    lag_seconds: float = Field(description="The age of the oldest of these events; 0 if there are none.")
    parked: int = Field(description="The number of conversations that the projection cannot go on with.")
    paused_at: datetime | None = Field(description="Since when it is paused; null if it is not.")
    batch_events: int | None = Field(description="Events of the log that its last batch covered.")
    batch_seconds: float | None = Field(description="The time that its last batch took.")


class ProjectionsOut(PageOut):
    """All projections."""

    items: list[ProjectionOut]


@router.get("", response_model=ProjectionsOut, responses=errors(), openapi_extra=needs(Data.METRICS))
async def list_projections(context: CurrentContext) -> ProjectionsOut:
    """List the projections. The key must be of the server's own tenant, because they concern all tenants."""
    check_operator(context)
    return ProjectionsOut(items=await _projections(context), next=None)


@router.post("/{projection}/pause", response_model=ProjectionOut, **writes(Data.METRICS, NOT_FOUND))
async def pause_projection(context: CurrentContext, projection: str) -> ProjectionOut:
    """Pause a projection: its read tables stay as they are until it is resumed. It is an administrative act."""
    return await _change(context, projection, pause)


@router.post("/{projection}/resume", response_model=ProjectionOut, **writes(Data.METRICS, NOT_FOUND))
async def resume_projection(context: CurrentContext, projection: str) -> ProjectionOut:
    """Resume a projection: workers continue where it was paused. It is an administrative act."""
    return await _change(context, projection, resume)


async def change_projection(
    context: RequestContext,
    name: str,
    change: Callable[[EventStore, Sequence[Projection]], Awaitable[list[str]]],
) -> None:
    """Pause or resume a projection, as an administrative act.

    Raises:
        NotFound: There is no such projection.
        Rejected: The caller is not an operator.
    """
    check_operator(context)
    projections = select_projections([name], load_projections(context.store.settings.projections))
    await change(context.store, projections)
    await context.server_context.lag_history.read()  # so that who changed it sees it


async def _change(
    context: RequestContext,
    name: str,
    change: Callable[[EventStore, Sequence[Projection]], Awaitable[list[str]]],
) -> ProjectionOut:
    await change_projection(context, name, change)
    return next(each for each in await _projections(context) if each.name == name)


async def _projections(context: RequestContext) -> list[ProjectionOut]:
    now = (await context.server_context.lag_history.samples())[-1]
    return [
        ProjectionOut(
            name=lag.projection,
            position=progress.position if (progress := now.progress.get(lag.projection)) else 0,
            lag_events=lag.events,
            lag_seconds=lag.seconds,
            parked=lag.parked,
            paused_at=lag.paused_at,
            batch_events=progress.batch_events if progress else None,
            batch_seconds=progress.batch_seconds if progress else None,
        )
        for lag in now.lags
    ]
