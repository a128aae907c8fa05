"""Members: the users who may see a conversation or write to it. Changes take effect before the response is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import Field
from pydantic_core import to_json
from starlette.responses import Response

from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext, RequestContext, write_page
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.declarations import CONFLICT, NOT_FOUND, TOO_LARGE, reads, writes
from agent_manager.server.schemas.common import In, Out, PageOut
from eventstore import ConversationShared, ConversationUnshared
from eventstore.database.queries import query
from eventstore.errors import ConflictError, printable

router = APIRouter(prefix="/conversations/{conversation}/members", tags=["members"], route_class=AuthorizedRoute)

_MEMBERS = query("agent_manager.server", "members")
_IS_OWNER = query("agent_manager.server", "is_owner")
READ_AT_ONCE = 10_000
"""Members that are in memory at a time. Each statement sorts all members of the conversation."""

User = Annotated[str, Field(min_length=1, max_length=255, description="The user's id within the tenant.")]


class MemberOut(Out):
    """A user who may see a conversation."""

    user: str
    access: Literal["own", "write", "read"] = Field(description="own: also share and delete; write: also append.")


class MembersOut(PageOut):
    """All users who may see a conversation, beside the administrators of its tenant."""

    items: list[MemberOut]


class MemberIn(In):
    """A user with whom to share a conversation."""

    user: User
    access: Literal["read", "write"] = "read"


@router.get("", response_model=MembersOut, **reads(Data.CONTENT, NOT_FOUND))
async def list_members(context: CurrentContext, conversation: str) -> Response:
    """List the users who may see a conversation: its owner, and those with whom it is shared."""
    resolved = await get_or_404(context.reader, conversation)

    async def write(out: BodyWriter) -> None:
        async with aclosing(members_of(context, resolved.id)) as members:
            await write_page(out, members, lambda member: to_json({"user": member[0], "access": member[1]}))

    return await context.respond(str(resolved.version), write, parameters=resolved.id)


@router.post("", status_code=201, response_model=MemberOut, **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, TOO_LARGE))
async def share(context: CurrentContext, conversation: str, member: MemberIn) -> MemberOut:
    """Share a conversation with a user, or change their access. Only its owner and administrators may."""
    resolved = await get_or_404(context.reader, conversation)
    await _check_not_owner(context, resolved.id, member.user)
    await context.append(resolved.id, [ConversationShared(user=member.user, access=member.access)])
    return MemberOut(user=member.user, access=member.access)


@router.delete("/{user}", status_code=204, response_class=Response, **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT))
async def unshare(context: CurrentContext, conversation: str, user: Annotated[User, Path()]) -> None:
    """Stop sharing a conversation with a user. Its owner stays."""
    resolved = await get_or_404(context.reader, conversation)
    await _check_not_owner(context, resolved.id, user)
    await context.append(resolved.id, [ConversationUnshared(user=user)])


async def members_of(context: RequestContext, conversation: UUID) -> AsyncGenerator[tuple[str, str], None]:
    """Yield the users who may see a conversation, and their access: the owner first, then the others by name."""
    tables = context.store.tables(context.caller, on_primary=True)
    after_others, after = False, ""
    while True:
        parameters = {"conversation": conversation, "after_others": after_others, "after": after, "limit": READ_AT_ONCE}
        rows = await tables.fetch(_MEMBERS, parameters)
        for user, access in rows:
            yield user, access
        if len(rows) < READ_AT_ONCE:
            return
        after_others, after = access != "own", user


async def _check_not_owner(context: CurrentContext, conversation: UUID, user: str) -> None:
    """Check that a change does not concern the owner, whose access it would not change.

    Only administrators and the owner may share; the append refuses all others, whomever they name.

    Raises:
        ConflictError: The user is the owner.
    """
    if context.caller.user not in (None, user):
        return
    parameters = {"conversation": conversation, "user": user}
    tables = context.store.tables(context.caller, on_primary=True)
    [(is_owner,)] = await tables.fetch(_IS_OWNER, parameters)
    if is_owner:
        raise ConflictError(f"{printable(user)} owns the conversation and stays its owner: name another user")
