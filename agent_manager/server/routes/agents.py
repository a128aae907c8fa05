"""The registry of agents."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field, model_validator
from starlette.responses import Response

from agent_manager.a2a import Json
from agent_manager.auth import TokenScope
from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext
from agent_manager.server.routes.declarations import BAD_GATEWAY, NOT_FOUND, TOO_LARGE, reads, writes
from agent_manager.server.schemas.common import In, PageOut

router = APIRouter(prefix="/agents", tags=["agents"], route_class=AuthorizedRoute)


class AgentIn(In):
    """An agent to register: the URL of its card, or the card itself."""

    url: str | None = Field(None, min_length=1, max_length=2000)
    card: Json | None = None

    @model_validator(mode="after")
    def _check_one_is_given(self) -> AgentIn:
        if (self.url is None) == (self.card is None):
            raise ValueError("give url or card, one of them")
        return self


class AgentQuery(In):
    """The agent to unregister."""

    url: str = Field(min_length=1, max_length=2000)


class AgentsOut(PageOut):
    """The cards of the registered agents, as the agents gave them."""

    items: list[Json]


@router.get("", response_model=AgentsOut, **reads(Data.CONTENT))
async def list_agents(context: CurrentContext) -> Response:
    """List the cards of the registered agents."""
    return await context.read_list(context.manager.agents)


@router.post("", status_code=201, response_model=Json, **writes(Data.REGISTRY, BAD_GATEWAY, TOO_LARGE))
async def register_agent(context: CurrentContext, agent: AgentIn) -> Json:
    """Register an agent and return its card; callers without the scope `read` get back what they sent."""
    url_or_card: str | Json | None = agent.url if agent.url is not None else agent.card
    assert url_or_card is not None
    card = await context.manager.register_agent(url_or_card, allow_private=context.server_context.allows_private)
    return card if context.identity.may(TokenScope.READ) else agent.model_dump(exclude_none=True)


@router.delete("", status_code=204, response_class=Response, **writes(Data.REGISTRY, NOT_FOUND))
async def unregister_agent(context: CurrentContext, query: Annotated[AgentQuery, Query()]) -> None:
    """Unregister an agent."""
    await context.manager.unregister_agent(query.url)
