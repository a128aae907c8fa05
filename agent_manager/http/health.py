"""Whether the process answers, and whether it can do its work: for whatever starts and watches it."""

from __future__ import annotations

from fastapi import APIRouter

from agent_manager.http.backend import Here
from agent_manager.http.looking import READ_TABLES
from agent_manager.http.models.others import HealthOut, ReadyOut
from agent_manager.http.v1.answers import errors
from eventstore.errors import StoreClosed
from eventstore.read import horizon
from projections import applied_position, named

router = APIRouter(tags=["health"])


@router.get("/health", response_model=HealthOut)
async def health() -> HealthOut:
    """The process answers. It asks nobody else."""
    return HealthOut()


@router.get("/ready", response_model=ReadyOut, responses=errors())
async def ready(here: Here) -> ReadyOut:
    """PostgreSQL answers; 503 where it does not, or where this server is about to end."""
    if here.closing.is_set():
        raise StoreClosed
    return ReadyOut(
        horizon=await horizon(here.store.pool), applied=await applied_position(here.store, named(list(READ_TABLES)))
    )
