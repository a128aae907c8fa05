"""Conversations: create, list, read, change and delete them; read all of one, as it is or as it was."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from agent_manager.agent_registry import checked_conversation
from agent_manager.auth import TokenScope
from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext, RequestContext, encoder
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.declarations import CONFLICT, NOT_FOUND, TOO_LARGE, reads, writes
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
from projections import Reader
from projections.cache import consistent_snapshot, read_change_token
from projections.conversation_snapshot import ConversationSnapshot

router = APIRouter(prefix="/conversations", tags=["conversations"], route_class=AuthorizedRoute)


@router.get("", response_model=ConversationPage, **reads(Data.CONTENT))
async def list_conversations(context: CurrentContext, query: Annotated[ConversationQuery, Query()]) -> Response:
    """List conversations, by default the latest updated first."""
    return await context.read_page(query, context.reader.conversations, ConversationOut)


@router.post(
    "",
    status_code=201,
    response_model=ConversationOut | ConversationRef,
    **writes(Data.CONVERSATION, CONFLICT, TOO_LARGE),
)
async def create_conversation(
    context: CurrentContext, response: Response, new: NewConversation
) -> ConversationOut | ConversationRef:
    """Create a conversation. Callers without the scope `read` get its id only."""
    given_id = new.id if new.id is not None else str(context.new_id("conversation"))
    conversation_id = checked_conversation(context.caller.tenant, given_id)
    event = ConversationCreated(
        name=new.name, given_id=None if is_canonical_uuid(given_id) else given_id, metadata=new.metadata
    )
    try:
        await context.append(conversation_id, [event], expected=NO_STREAM, claimed_actor=new.actor)
    except WrongExpectedVersion as error:
        raise _taken(given_id, f", at version {error.actual}") from None
    except Forbidden:  # it exists, and is not visible to the caller
        raise _taken(given_id) from None
    response.headers["Location"] = f"/v1/conversations/{quote(str(conversation_id))}"
    return await written_conversation(context, conversation_id)


@router.get("/{conversation}", response_model=ConversationOut, **reads(Data.CONTENT, NOT_FOUND))
async def get_conversation(
    context: CurrentContext, conversation: str, at_least: Annotated[AtLeast, Query()] = None
) -> Response:
    """Return a conversation, deleted or not, by its id or by the id that its client gave it."""

    async def write(out: BodyWriter) -> None:
        await out.write(encoder(ConversationOut)(await context.reader.conversation(conversation)))

    return await context.read(write, parameters=conversation, projections=("conversations",), at_least=at_least)


@router.patch(
    "/{conversation}",
    response_model=ConversationOut | ConversationRef,
    **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, TOO_LARGE),
)
async def change_conversation(
    context: CurrentContext, conversation: str, change: ConversationChange
) -> ConversationOut | ConversationRef:
    """Rename, archive or reactivate a conversation. Reactivating also undoes a deletion.

    Callers without the scope `read` get its id only.
    """
    events: list[EventData] = []
    if change.is_active is not None:
        events.append(ConversationReactivated() if change.is_active else ConversationArchived())
    if change.name is not None:
        events.append(ConversationRenamed(name=change.name))
    resolved = await get_or_404(context.reader, conversation)
    await context.append(resolved.id, events, expected=change.expected_version, claimed_actor=change.actor)
    return await written_conversation(context, resolved.id)


@router.delete("/{conversation}", status_code=204, response_class=Response, **writes(Data.CONVERSATION, NOT_FOUND))
async def delete_conversation(
    context: CurrentContext, conversation: str, actor: Annotated[Actor, Query()] = ""
) -> None:
    """Delete a conversation: lists hide it, nothing can be appended; `PATCH` with `is_active` true reactivates it.

    Its events are kept. Deleting it again has no effect.
    """
    resolved = await get_or_404(context.reader, conversation)
    with suppress(ConversationIsDeleted):
        await context.append(resolved.id, [ConversationDeleted()], claimed_actor=actor)


@router.get(
    "/{conversation}/state",
    response_model=StateOut,
    **reads(Data.CONTENT, NOT_FOUND, version=Data.PAST, position=Data.PAST, time=Data.PAST),
)
async def get_state(context: CurrentContext, conversation: str, query: Annotated[StateQuery, Query()]) -> Response:
    """Return a conversation with all its messages and tasks: now or, with the scope `audit`, at a point in the past."""
    resolved = await get_or_404(context.reader, conversation)
    as_of = query.model_dump(exclude_none=True)
    parameters = (resolved.id, as_of)

    async def write_past(out: BodyWriter) -> None:
        async with context.reader.snapshot_at(resolved.id, **as_of) as snapshot:
            await _write_state(out, snapshot)

    async def write_current(out: BodyWriter) -> None:
        async with consistent_snapshot(context.reader, resolved.id) as (_, snapshot):
            await _write_state(out, snapshot)

    if as_of:
        change_token = await context.past_token(resolved)
        return await context.respond(change_token, write_past, parameters=parameters, is_large=True)
    await context.caught_up(is_resolved=True)
    token = await read_change_token(context.reader, resolved.id)
    return await context.respond(str(token), write_current, parameters=parameters, is_large=True)


async def _write_state(out: BodyWriter, snapshot: ConversationSnapshot) -> None:
    """Write a :class:`StateOut` row by row."""
    await out.write(b'{"conversation":' + encoder(ConversationOut)(snapshot.conversation) + b',"messages":[')
    await out.write_items(snapshot.messages(), encoder(MessageOut))
    await out.write(b'],"tasks":[')
    await out.write_items(snapshot.tasks(), encoder(TaskOut))
    await out.write(b"]}")


def _taken(given_id: str, detail: str = "") -> ConflictError:
    return ConflictError(f"there is a conversation {given_id!r} already{detail}: choose another id, or leave it out")


async def written_conversation(context: RequestContext, conversation_id: UUID) -> ConversationOut | ConversationRef:
    """Return a conversation with what was just appended, as far as the caller may read it.

    It is read from the primary: a write does not depend on a standby.
    """
    if not context.identity.may(TokenScope.READ):
        return ConversationRef(id=conversation_id)
    await context.caught_up(("conversations",), is_resolved=True, on_primary=True)
    reader = Reader(context.store, caller=context.caller, on_primary=True)
    return ConversationOut.model_validate(await reader.conversation(conversation_id))
