"""Projections: how far they are, workers, parked conversations, and rebuilding, which is audited."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response

from agent_manager.console.operator import check_operator, samples
from agent_manager.console.pages import ROOT, ConsoleRoute, form, page, redirect
from agent_manager.server.authorization import Data, needs
from agent_manager.server.context import CurrentContext
from agent_manager.server.schemas.common import In
from eventstore.database.queries import query
from eventstore.read import horizon
from projections import read_parked, retry_parked
from projections.status import read_workers

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

_PROGRESS = query("agent_manager.console", "progress")
_CHANGE = needs(Data.METRICS)


class ActionIn(In):
    """A confirmed action."""


@page(router, "/projections", "projections.html", Data.METRICS)
async def show_projections(context: CurrentContext) -> dict[str, Any]:
    """Show the projections, the workers, and what is parked."""
    check_operator(context)
    kept = await samples(context)
    rebuilds = context.server_context.rebuilds
    known = rebuilds.projections()
    progress = {
        name: {"position": position, "updated_at": at, "is_current": made_by == known[name].definition_hash}
        for name, position, at, made_by in await context.store.connections.projector.fetch(_PROGRESS)
        if name in known
    }
    return {
        "projections": [
            {
                "name": lag.projection,
                "state": progress.get(lag.projection),
                "lag": lag,
                "trend": [(round(each.at - kept[-1].at), _seconds_of(each.lags, lag.projection)) for each in kept],
                "rebuild": rebuilds.latest.get(lag.projection),
            }
            for lag in kept[-1].lags
        ],
        "last_position": kept[-1].last_position,
        "horizon": await horizon(context.store.connections.projector),
        "workers": await read_workers(context.store),
        "parked": await read_parked(context.store, list(known.values())),
    }


def _seconds_of(lags: Any, name: str) -> float:
    return next((round(lag.seconds, 2) for lag in lags if lag.projection == name), 0.0)


@router.post("/projections/{name}/rebuild", openapi_extra=_CHANGE)
async def start_rebuild(context: CurrentContext, name: str, _: Annotated[ActionIn, form(ActionIn)]) -> Response:
    """Rebuild the tables of a projection, or continue."""
    check_operator(context)
    context.server_context.rebuilds.start(name)
    return redirect(context, "projections")


@router.post("/projections/{name}/pause", openapi_extra=_CHANGE)
async def pause_rebuild(context: CurrentContext, name: str, _: Annotated[ActionIn, form(ActionIn)]) -> Response:
    """Pause the rebuild of a projection."""
    check_operator(context)
    await context.server_context.rebuilds.pause(name)
    return redirect(context, "projections")


@router.post("/projections/{name}/undo", openapi_extra=_CHANGE)
async def undo(context: CurrentContext, name: str, _: Annotated[ActionIn, form(ActionIn)]) -> Response:
    """Restore the tables that the last rebuild of a projection has replaced."""
    check_operator(context)
    context.server_context.rebuilds.start(name, is_undo=True)
    return redirect(context, "projections")


@router.post("/projections/retry", openapi_extra=_CHANGE)
async def retry(context: CurrentContext, _: Annotated[ActionIn, form(ActionIn)]) -> Response:
    """Apply the events of parked conversations again."""
    check_operator(context)
    await retry_parked(context.store, list(context.server_context.rebuilds.projections().values()))
    return redirect(context, "projections")
