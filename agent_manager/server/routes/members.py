"""Sharing: who may see a conversation, and who may write in it. What was changed holds when the answer comes."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path
from starlette.responses import Response

from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext
from agent_manager.server.lookups import get_or_404
from agent_manager.server.routes.openapi import CONFLICT, NOT_FOUND, TOO_LARGE, errors
from agent_manager.server.schemas.members import MemberIn, MemberOut, MembersOut, User
from eventstore import ConversationShared, ConversationUnshared
from eventstore.database.queries import query
from eventstore.errors import ConflictError, printable

router = APIRouter(prefix="/conversations/{conversation}/members", tags=["members"], route_class=AuthorizedRoute)

_MEMBERS = query("agent_manager.server", "members")


@router.get("", response_model=MembersOut, responses=errors(NOT_FOUND), openapi_extra=needs(Data.CONTENT))
async def list_members(context: CurrentContext, conversation: str) -> MembersOut:
    """Who may see a conversation: its owner, and those with whom it was shared."""
    found = await get_or_404(context.reader, conversation)
    return MembersOut(items=await _members(context, found.id))


@router.post(
    "",
    status_code=201,
    response_model=MemberOut,
    responses=errors(NOT_FOUND, CONFLICT, TOO_LARGE),
    openapi_extra=needs(Data.CONVERSATION),
)
async def share(context: CurrentContext, conversation: str, member: MemberIn) -> MemberOut:
    """Shares a conversation with a user, or changes what they may do. Only its owner may, and administrators."""
    found = await get_or_404(context.reader, conversation)
    await _check_no_owner(context, found.id, member.user)
    await context.append(found.id, [ConversationShared(user=member.user, access=member.access)])
    return MemberOut(user=member.user, access=member.access)


@router.delete(
    "/{user}",
    status_code=204,
    response_class=Response,
    responses=errors(NOT_FOUND, CONFLICT),
    openapi_extra=needs(Data.CONVERSATION),
)
async def unshare(context: CurrentContext, conversation: str, user: Annotated[User, Path()]) -> None:
    """Shares a conversation with a user no longer. Its owner stays."""
    found = await get_or_404(context.reader, conversation)
    await _check_no_owner(context, found.id, user)
    await context.append(found.id, [ConversationUnshared(user=user)])


async def _members(context: CurrentContext, conversation: UUID) -> list[MemberOut]:
    rows = await context.store.tables(context.caller).fetch(_MEMBERS, {"conversation": conversation})
    return [MemberOut(user=user, access=access) for user, access in rows]


async def _check_no_owner(context: CurrentContext, conversation: UUID, user: str) -> None:
    """Refuses to change what the owner may do: it would be written, and change nothing.

    Raises:
        ConflictError: they are the owner. Whoever may not share is refused by the append, whomever they name.
    """
    if context.caller.user not in (None, user):
        return
    if MemberOut(user=user, access="own") in await _members(context, conversation):
        raise ConflictError(f"{printable(user)} owns the conversation and stays its owner: name somebody else")
