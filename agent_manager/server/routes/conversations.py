"""Conversations: begin, list, read, change, hide; and all of one, as it is or as it was."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.agent_registry import checked_conversation
from agent_manager.auth import Scope
from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, RequestContext, encoder, write_page, writes
from agent_manager.server.lookups import get_or_404
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.openapi import CONFLICT, NOT_FOUND, TOO_LARGE, errors, read_errors
from agent_manager.server.schemas.common import AtLeast
from agent_manager.server.schemas.conversations import (
    Actor,
    ConversationChange,
    ConversationOut,
    ConversationPage,
    ConversationQuery,
    ConversationRef,
    MessageOut,
    NewConversation,
    StateOut,
    StateQuery,
    TaskOut,
)
from eventstore import (
    ANY,
    NO_STREAM,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    ConversationRenamed,
    EventData,
)
from eventstore.errors import ConflictError, ConversationIsDeleted, Forbidden, WrongExpectedVersion
from eventstore.ids import is_canonical_uuid
from projections.cache import consistent_snapshot, read_change_token
from projections.conversation_snapshot import ConversationSnapshot

router = APIRouter(prefix="/conversations", tags=["conversations"], route_class=AuthorizedRoute)
_READ, _WRITE = needs(Data.CONTENT), needs(Data.CONVERSATION)


@router.get("", response_model=ConversationPage, responses=read_errors(), openapi_extra=_READ)
async def list_conversations(
    context: CurrentContext, request: Request, asked: Annotated[ConversationQuery, Query()]
) -> Response:
    """Conversations, the latest updated first."""
    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        found = await context.reader.conversations(**which)
        await write_page(out, found, encoder(ConversationOut), found.next)

    return await context.read(request, page, asked=which, at_least=asked.at_least)


@router.post(
    "",
    status_code=201,
    response_model=ConversationOut | ConversationRef,
    responses=errors(CONFLICT, TOO_LARGE),
    openapi_extra=_WRITE,
)
async def create_conversation(
    context: CurrentContext, response: Response, new: NewConversation
) -> ConversationOut | ConversationRef:
    """Begins a conversation. Callers without the scope `read` are given its id alone."""
    given = new.id if new.id is not None else str(context.new_id("conversation"))
    conversation_id = checked_conversation(context.caller.tenant, given)
    event = ConversationCreated(
        name=new.name, given_id=None if is_canonical_uuid(given) else given, metadata=new.metadata
    )
    try:
        await context.append(conversation_id, [event], expected=NO_STREAM, claimed=new.actor)
    except WrongExpectedVersion as error:
        raise _taken(given, f", at version {error.actual}") from None
    except Forbidden:  # somebody else's
        raise _taken(given) from None
    response.headers["Location"] = f"/v1/conversations/{quote(str(conversation_id))}"
    return await _conversation(context, conversation_id)


@router.get("/{conversation}", response_model=ConversationOut, responses=read_errors(NOT_FOUND), openapi_extra=_READ)
async def get_conversation(
    context: CurrentContext, request: Request, conversation: str, at_least: Annotated[AtLeast, Query()] = None
) -> Response:
    """A conversation, deleted or not, by its id or by the id that its client gave it."""

    async def make() -> ConversationOut:
        return ConversationOut.model_validate(await context.reader.conversation(conversation))

    return await context.read(
        request, writes(make), asked=conversation, projections=("conversations",), at_least=at_least
    )


@router.patch(
    "/{conversation}",
    response_model=ConversationOut | ConversationRef,
    responses=errors(NOT_FOUND, CONFLICT, TOO_LARGE),
    openapi_extra=_WRITE,
)
async def change_conversation(
    context: CurrentContext, conversation: str, change: ConversationChange
) -> ConversationOut | ConversationRef:
    """Renames, archives or reactivates a conversation; reactivating takes a deletion back, too.

    Callers without the scope `read` are given its id alone.
    """
    events: list[EventData] = []
    if change.is_active is not None:
        events.append(ConversationReactivated() if change.is_active else ConversationArchived())
    if change.name is not None:
        events.append(ConversationRenamed(name=change.name))
    found = await get_or_404(context.reader, conversation)
    expected = ANY if change.expected_version is None else change.expected_version
    await context.append(found.id, events, expected=expected, claimed=change.actor)
    return await _conversation(context, found.id)


@router.delete(
    "/{conversation}", status_code=204, response_class=Response, responses=errors(NOT_FOUND), openapi_extra=_WRITE
)
async def delete_conversation(
    context: CurrentContext, conversation: str, actor: Annotated[Actor, Query()] = ""
) -> None:
    """Deletes a conversation: lists hide it, nothing can be added; `PATCH` with `is_active` true reactivates it.

    Its events stay. Deleting it again changes nothing.
    """
    found = await get_or_404(context.reader, conversation)
    with suppress(ConversationIsDeleted):
        await context.append(found.id, [ConversationDeleted()], claimed=actor)


@router.get(
    "/{conversation}/state",
    response_model=StateOut,
    responses=read_errors(NOT_FOUND),
    openapi_extra=needs(Data.CONTENT, version=Data.PAST, position=Data.PAST, time=Data.PAST),
)
async def get_state(
    context: CurrentContext, request: Request, conversation: str, asked: Annotated[StateQuery, Query()]
) -> Response:
    """A conversation with all its messages and tasks: as it is, or, for `audit`, at a version, position or time."""
    found = await get_or_404(context.reader, conversation)
    limits = asked.model_dump(exclude_none=True)

    async def as_it_is(out: BodyWriter) -> None:
        async with consistent_snapshot(context.reader, found.id) as (_, snapshot):
            await _write_state(out, snapshot)

    async def as_it_was(out: BodyWriter) -> None:
        async with context.reader.snapshot_at(found.id, **limits) as snapshot:
            await _write_state(out, snapshot)

    if limits:
        return await context.read_log(
            request, as_it_was, asked=(found.id, limits), change_token=found.version, is_large=True
        )
    await context.caught_up(of_found=True)
    change_token = await read_change_token(context.reader, found.id)
    return await context.given(request, str(change_token), as_it_is, asked=(found.id, limits), is_large=True)


async def _write_state(out: BodyWriter, snapshot: ConversationSnapshot) -> None:
    """Write a :class:`StateOut`, as its parts are read."""
    await out.write(b'{"conversation":' + encoder(ConversationOut)(snapshot.conversation) + b',"messages":[')
    await out.write_rows(snapshot.messages(), encoder(MessageOut))
    await out.write(b'],"tasks":[')
    await out.write_rows(snapshot.tasks(), encoder(TaskOut))
    await out.write(b"]}")


def _taken(given: str, more: str = "") -> ConflictError:
    return ConflictError(f"there is a conversation {given!r} already{more}: choose another id, or leave it out")


async def _conversation(context: RequestContext, conversation_id: UUID) -> ConversationOut | ConversationRef:
    """Return a conversation as it is after what was just appended, as far as the caller may read it."""
    if not context.identity.may(Scope.READ):
        return ConversationRef(id=conversation_id)
    await context.caught_up(("conversations",), of_found=True)
    return ConversationOut.model_validate(await context.reader.conversation(conversation_id))
