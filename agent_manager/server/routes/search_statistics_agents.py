"""Searching, statistics, agents and pending messages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.auth import Scope
from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, writes
from agent_manager.server.lookups import get_or_404
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.openapi import BAD_GATEWAY, NOT_FOUND, TOO_LARGE, errors, read_errors
from agent_manager.server.schemas.common import Json
from agent_manager.server.schemas.search_statistics_agents import (
    AgentIn,
    AgentQuery,
    AgentsOut,
    HitOut,
    PendingMessage,
    PendingOut,
    SearchOut,
    SearchQuery,
    StatisticsOut,
    StatisticsQuery,
)

router = APIRouter(route_class=AuthorizedRoute)


@router.get(
    "/search",
    response_model=SearchOut,
    responses=read_errors(NOT_FOUND),
    tags=["search"],
    openapi_extra=needs(Data.CONTENT),
)
async def search(context: CurrentContext, request: Request, asked: Annotated[SearchQuery, Query()]) -> Response:
    """What messages and tasks say, in any of the words' forms. A text is found a moment after it was stored."""
    which = asked.model_dump(exclude={"q", "conversation", "after", "at_least"})
    if asked.conversation is not None:
        which["conversation"] = (await get_or_404(context.reader, asked.conversation)).id

    which["after"] = context.opened(asked.after)

    async def page(out: BodyWriter) -> None:
        found = await context.search.page(asked.q, **which)
        await out.write(b'{"searched":' + to_json(found.searched) + b',"items":[')
        await out.write_items(
            found.hits, lambda hit: HitOut.model_validate(hit).told(context.position).model_dump_json().encode()
        )
        out.cursor = found.cursor
        await out.write(b"]" if found.cursor is not None else b'],"next":null}')

    return await context.read(request, page, asked=(asked.q, which), projections=("search",), at_least=asked.at_least)


@router.get(
    "/statistics",
    response_model=StatisticsOut,
    responses=read_errors(),
    tags=["statistics"],
    openapi_extra=needs(Data.CONTENT),
)
async def statistics(context: CurrentContext, request: Request, asked: Annotated[StatisticsQuery, Query()]) -> Response:
    """Counts, sizes and times, by day, role, actor and status."""
    which = asked.model_dump(exclude={"at_least"})

    async def make() -> StatisticsOut:
        read = context.statistics
        return StatisticsOut(
            days=await read.by_day(**which),
            roles=await read.by_role(**which),
            actors=await read.by_actor(**which),
            statuses=await read.by_status(**which),
            response_times=await read.response_times(**which),
            response_times_by_day=await read.response_times_by_day(**which),
            response_times_by_actor=await read.response_times_by_actor(**which),
            task_times=await read.task_times(**which),
            sizes=await read.sizes(**which),
        )

    return await context.read(request, writes(make), asked=which, projections=("statistics",), at_least=asked.at_least)


@router.get(
    "/agents", response_model=AgentsOut, responses=read_errors(), tags=["agents"], openapi_extra=needs(Data.CONTENT)
)
async def list_agents(context: CurrentContext, request: Request) -> Response:
    """The cards of the registered agents."""

    async def make() -> AgentsOut:
        return AgentsOut(items=await context.manager.agents())

    return await context.read_log(request, writes(make))


@router.post(
    "/agents",
    status_code=201,
    response_model=Json,
    responses=errors(BAD_GATEWAY, TOO_LARGE),
    tags=["agents"],
    openapi_extra=needs(Data.REGISTRY),
)
async def register_agent(context: CurrentContext, agent: AgentIn) -> Json:
    """Registers an agent. Gives its card; to callers without the scope `read` what they sent."""
    given: str | Json | None = agent.url if agent.url is not None else agent.card
    assert given is not None
    card = await context.manager.register_agent(given, allow_private=context.server_context.allows_private)
    return card if context.identity.may(Scope.READ) else agent.model_dump(exclude_none=True)


@router.delete(
    "/agents",
    status_code=204,
    response_class=Response,
    responses=errors(NOT_FOUND),
    tags=["agents"],
    openapi_extra=needs(Data.REGISTRY),
)
async def unregister_agent(context: CurrentContext, asked: Annotated[AgentQuery, Query()]) -> None:
    """Forgets an agent."""
    await context.manager.unregister_agent(asked.url)


@router.get(
    "/pending", response_model=PendingOut, responses=read_errors(), tags=["messages"], openapi_extra=needs(Data.CONTENT)
)
async def pending(context: CurrentContext, request: Request) -> Response:
    """The messages that wait for an answer, oldest first."""

    async def make() -> PendingOut:
        waiting = [PendingMessage.model_validate(each) for each in await context.manager.pending()]
        return PendingOut(items=[each.told(context.position) for each in waiting])

    return await context.read_log(request, writes(make))
