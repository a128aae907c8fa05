"""Statistics of conversations, messages and tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from pydantic_core import to_json
from starlette.responses import Response

from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.declarations import reads
from agent_manager.server.schemas.common import AtLeast, Day, In, Out
from projections import Statistics
from projections.statistics import ActorCounts, DayCounts, ResponseTimes, RoleCounts, Size, StatusCount, TaskTimes

router = APIRouter(tags=["statistics"], route_class=AuthorizedRoute)


class StatisticsQuery(In):
    """The period and the filters of statistics."""

    since: Day | None = Field(None, description="The first day.")
    until: Day | None = Field(None, description="The last day.")
    actor: str | None = None
    zone: str = Field("UTC", description="The time zone of the days, such as America/Sao_Paulo or -03:00.")
    at_least: AtLeast = None


class StatisticsOut(Out):
    """All statistics."""

    zone: str = Field(description="The time zone of the days, as it was given.")
    days: list[DayCounts]
    roles: list[RoleCounts]
    actors: list[ActorCounts]
    statuses: list[StatusCount]
    response_times: ResponseTimes
    response_times_by_day: list[ResponseTimes]
    response_times_by_actor: list[ResponseTimes]
    task_times: list[TaskTimes]
    sizes: list[Size]


_READS = {
    "days": Statistics.by_day,
    "roles": Statistics.by_role,
    "actors": Statistics.by_actor,
    "statuses": Statistics.by_status,
    "response_times": Statistics.response_times,
    "response_times_by_day": Statistics.response_times_by_day,
    "response_times_by_actor": Statistics.response_times_by_actor,
    "task_times": Statistics.task_times,
    "sizes": Statistics.sizes,
}
"""The method that reads each member of :class:`StatisticsOut`."""


@router.get("/statistics", response_model=StatisticsOut, **reads(Data.CONTENT))
async def statistics(context: CurrentContext, query: Annotated[StatisticsQuery, Query()]) -> Response:
    """Return counts, sizes and times by day, role, actor and status."""
    filters = query.model_dump(exclude={"at_least"})

    async def write(out: BodyWriter) -> None:
        source = Statistics(context.store, caller=context.caller)
        await out.write(b'{"zone":' + to_json(query.zone))
        for name, read in _READS.items():
            found = await read(source, **filters)
            await out.write(b"," + to_json(name) + b":")
            if isinstance(found, list):
                await out.write(b"[")
                await out.write_items(found, to_json)
                await out.write(b"]")
            else:
                await out.write(to_json(found))
        await out.write(b"}")

    return await context.read(write, parameters=filters, projections=("statistics",), at_least=query.at_least)
