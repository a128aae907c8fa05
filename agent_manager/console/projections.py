"""Projections: how far they are, workers, parked conversations, pauses, rebuilds; actions are administrative acts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response

from agent_manager.console.pages import ROOT, ConsoleRoute, form, page, redirect
from agent_manager.server.authorization import Data, needs
from agent_manager.server.context import CurrentContext
from agent_manager.server.lag_history import Sample
from agent_manager.server.operators import check_operator
from agent_manager.server.routes.projections import change_projection
from agent_manager.server.schemas.common import In
from eventstore.read import horizon
from projections import pause, read_parked, resume, retry_parked
from projections.status import read_workers

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

PARKED_ROWS = 50
"""Parked conversations that the page lists; the oldest first."""
TREND = 60
"""Points of a trend at most."""
_CHANGE = needs(Data.METRICS)


class ActionIn(In):
    """A confirmed action."""


Action = Annotated[ActionIn, form(ActionIn)]


@page(router, "/projections", "projections.html", Data.METRICS)
async def show_projections(context: CurrentContext) -> dict[str, Any]:
    """Show the projections, the workers, and what is parked."""
    check_operator(context)
    samples = await context.server_context.lag_history.samples()
    now, trend = samples[-1], samples[:: -(-len(samples) // TREND)]
    rebuilds = context.server_context.rebuilds
    known = rebuilds.projections()
    final = await horizon(context.store.connections.projector)
    return {
        "projections": [
            {
                "name": lag.projection,
                "state": (state := now.progress.get(lag.projection)),
                "is_current": state is None or state.definition_hash == known[lag.projection].definition_hash,
                "lag": lag,
                "trend": [(round(each.at - now.at), _lag_seconds(each, lag.projection)) for each in trend],
                "batches": [(round(each.at - now.at), _batch_seconds(each, lag.projection)) for each in trend],
                "rebuild": rebuilds.latest.get(lag.projection),
                "rebuilt": None if lag.rebuilt is None else min(100, round(100 * lag.rebuilt / max(final, 1))),
            }
            for lag in now.lags
            if lag.projection in known
        ],
        "last_position": now.last_position,
        "horizon": final,
        "workers": await read_workers(context.store),
        "parked": await read_parked(context.store, list(known.values()), limit=PARKED_ROWS),
        "parked_number": sum(lag.parked for lag in now.lags),
    }


def _lag_seconds(sample: Sample, name: str) -> float:
    return next((round(lag.seconds, 2) for lag in sample.lags if lag.projection == name), 0.0)


def _batch_seconds(sample: Sample, name: str) -> float:
    progress = sample.progress.get(name)
    return round(progress.batch_seconds or 0.0, 4) if progress else 0.0


@router.post("/projections/{name}/pause", openapi_extra=_CHANGE)
async def pause_projection(context: CurrentContext, name: str, _: Action) -> Response:
    """Pause a projection."""
    await change_projection(context, name, pause)
    return redirect(context, "projections")


@router.post("/projections/{name}/resume", openapi_extra=_CHANGE)
async def resume_projection(context: CurrentContext, name: str, _: Action) -> Response:
    """Resume a projection."""
    await change_projection(context, name, resume)
    return redirect(context, "projections")


@router.post("/projections/{name}/rebuild", openapi_extra=_CHANGE)
async def start_rebuild(context: CurrentContext, name: str, _: Action) -> Response:
    """Rebuild the tables of a projection, or continue."""
    check_operator(context)
    context.server_context.rebuilds.start(name)
    return redirect(context, "projections")


@router.post("/projections/{name}/rebuild/pause", openapi_extra=_CHANGE)
async def pause_rebuild(context: CurrentContext, name: str, _: Action) -> Response:
    """Pause the rebuild of a projection."""
    check_operator(context)
    await context.server_context.rebuilds.pause(name)
    return redirect(context, "projections")


@router.post("/projections/{name}/rebuild/undo", openapi_extra=_CHANGE)
async def undo_rebuild(context: CurrentContext, name: str, _: Action) -> Response:
    """Restore the tables that the last rebuild of a projection has replaced."""
    check_operator(context)
    context.server_context.rebuilds.start(name, is_undo=True)
    return redirect(context, "projections")


@router.post("/projections/retry", openapi_extra=_CHANGE)
async def retry(context: CurrentContext, _: Action) -> Response:
    """Apply the events of parked conversations again."""
    check_operator(context)
    await retry_parked(context.store, list(context.server_context.rebuilds.projections().values()))
    return redirect(context, "projections")
