"""Full-text search over messages, tasks and the names of conversations."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field
from pydantic_core import to_json
from starlette.responses import Response

from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.declarations import NOT_FOUND, reads
from agent_manager.server.schemas.common import AtLeast, Cursor, In, PageOut, PositionedOut, Since, Until
from eventstore import Role
from projections import Search
from projections.search import HitKind

router = APIRouter(tags=["search"], route_class=AuthorizedRoute)


class SearchQuery(In):
    """The query and the filters of a search, and the page of its results."""

    q: str = Field(min_length=1, max_length=10_000, description='Words; "a phrase"; -without; one or another; begins*')
    by: Literal["relevance", "time"] = "relevance"
    kind: HitKind | None = None
    role: Role | None = None
    actor: str | None = None
    conversation: str | None = Field(None, description="Only in this conversation.")
    since: Since = None
    until: Until = None
    language: str | None = Field(None, description="The language of the query, such as pt or en-US.")
    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    after: Cursor = None
    at_least: AtLeast = None


class HitOut(PositionedOut):
    """A search hit."""

    kind: HitKind
    id: UUID
    conversation_id: UUID
    version: int
    role: str | None
    actor: str
    created_at: AwareDatetime
    language: str
    rank: float
    snippet: str = Field(description="The matching passages, with « and » around the matches.")


class SearchOut(PageOut):
    """A page of search hits."""

    items: list[HitOut]
    searched: str = Field(
        description="The query; if it matches nothing, with misspelt words corrected, or with some words left out."
    )


@router.get("/search", response_model=SearchOut, **reads(Data.CONTENT, NOT_FOUND))
async def search(context: CurrentContext, query: Annotated[SearchQuery, Query()]) -> Response:
    """Search messages and tasks for words in any inflection. New text is found a moment after it is stored."""
    filters = query.model_dump(exclude={"q", "conversation", "after", "at_least"})
    if query.conversation is not None:
        filters["conversation"] = (await get_or_404(context.reader, query.conversation)).id
    filters["after"] = context.open_cursor(query.after)

    async def write(out: BodyWriter) -> None:
        page = await Search(context.store, caller=context.caller).page(query.q, **filters)
        await out.write(b'{"searched":' + to_json(page.searched) + b',"items":[')
        await out.write_items(
            page.items, lambda hit: HitOut.model_validate(hit).with_position(context.position).to_bytes()
        )
        out.cursor = page.next  # holds a position
        await out.write(b"]" if page.next is not None else b'],"next":null}')

    return await context.read(write, parameters=(query.q, filters), projections=("search",), at_least=query.at_least)
