"""Sharing: who may see a conversation, and who may write in it. What was changed holds when the answer comes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from agent_manager.http.admission import WalledRoute
from agent_manager.http.asking import needs
from agent_manager.http.here import Here
from agent_manager.http.looking import existing
from agent_manager.http.models.members import MemberIn, MemberOut, MembersOut, User
from agent_manager.http.v1.answers import NOT_FOUND, TOO_LARGE, errors
from agent_manager.identity import Scope
from eventstore import ConversationShared, ConversationUnshared
from eventstore.database.queries import query

router = APIRouter(prefix="/conversations/{conversation}/members", tags=["members"], route_class=WalledRoute)

_MEMBERS = query("agent_manager.http", "members")


@router.get("", response_model=MembersOut, responses=errors(NOT_FOUND), openapi_extra=needs(Scope.READ))
async def list_members(here: Here, conversation: str) -> MembersOut:
    """Who may see a conversation: its owner, and those with whom it was shared."""
    found = await existing(here.reader, conversation)
    rows = await here.store.tables(here.caller).fetch(_MEMBERS, {"conversation": found.id})
    return MembersOut(items=[MemberOut(user=user, access=access) for user, access in rows])


@router.post(
    "",
    status_code=201,
    response_model=MemberOut,
    responses=errors(NOT_FOUND, TOO_LARGE),
    openapi_extra=needs(Scope.WRITE),
)
async def share(here: Here, conversation: str, member: MemberIn) -> MemberOut:
    """Shares a conversation with a user, or changes what they may do. Only its owner may, and administrators."""
    found = await existing(here.reader, conversation)
    await here.append(found.id, [ConversationShared(user=member.user, access=member.access)])
    return MemberOut(user=member.user, access=member.access)


@router.delete(
    "/{user}",
    status_code=204,
    response_class=Response,
    responses=errors(NOT_FOUND),
    openapi_extra=needs(Scope.WRITE),
)
async def unshare(here: Here, conversation: str, user: Annotated[User, Path()]) -> None:
    """Shares a conversation with a user no longer. Its owner stays."""
    found = await existing(here.reader, conversation)
    await here.append(found.id, [ConversationUnshared(user=user)])
