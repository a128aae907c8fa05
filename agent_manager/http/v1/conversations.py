"""Conversations: begin, list, read, change, hide; and all of one, as it is or as it was."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote
from uuid import UUID, uuid4

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.http.backend import Backend, Here
from agent_manager.http.looking import existing
from agent_manager.http.models.common import AtLeast, PageOut
from agent_manager.http.models.conversations import (
    Actor,
    ConversationChange,
    ConversationOut,
    ConversationPage,
    ConversationQuery,
    NewConversation,
    StateOut,
    StateQuery,
)
from agent_manager.http.v1.answers import CONFLICT, NOT_FOUND, TOO_LARGE, errors, read_errors
from eventstore import (
    ANY,
    NO_STREAM,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    ConversationRenamed,
    EventData,
    conversation_uuid,
)
from eventstore.errors import ConflictError, WrongExpectedVersion
from eventstore.ids import is_canonical_uuid

router = APIRouter(prefix="/conversations", tags=["conversations"])


@router.get("", response_model=ConversationPage, responses=read_errors())
async def list_conversations(here: Here, request: Request, asked: Annotated[ConversationQuery, Query()]) -> Response:
    """Conversations, the latest updated first."""

    async def page() -> PageOut:
        found = await here.reader.conversations(**asked.model_dump(exclude={"at_least"}))
        return ConversationPage.model_validate({"items": list(found), "next": found.next}, from_attributes=True)

    return await here.read(request, page, at_least=asked.at_least)


@router.post("", status_code=201, response_model=ConversationOut, responses=errors(CONFLICT, TOO_LARGE))
async def create_conversation(here: Here, response: Response, new: NewConversation) -> ConversationOut:
    """Begins a conversation."""
    given = new.id if new.id is not None else str(uuid4())
    conversation_id = conversation_uuid(here.store.tenant, given)
    event = ConversationCreated(
        name=new.name, given_id=None if is_canonical_uuid(given) else given, metadata=new.metadata
    )
    try:
        here.wrote(await here.store.append(conversation_id, [event], expected=NO_STREAM, actor=new.actor))
    except WrongExpectedVersion as error:
        raise ConflictError(
            f"there is a conversation {given!r} already, at version {error.actual}: choose another id, or leave it out"
        ) from None
    response.headers["Location"] = f"/v1/conversations/{quote(str(conversation_id))}"
    return await _conversation(here, conversation_id)


@router.get("/{conversation}", response_model=ConversationOut, responses=read_errors(NOT_FOUND))
async def get_conversation(
    here: Here, request: Request, conversation: str, at_least: Annotated[AtLeast, Query()] = None
) -> Response:
    """A conversation, hidden or not, by its id or by the id that its client gave it."""

    async def make() -> ConversationOut:
        return ConversationOut.model_validate(await here.reader.conversation(conversation))

    return await here.read(request, make, projections=("conversations",), at_least=at_least)


@router.patch("/{conversation}", response_model=ConversationOut, responses=errors(NOT_FOUND, CONFLICT, TOO_LARGE))
async def change_conversation(here: Here, conversation: str, change: ConversationChange) -> ConversationOut:
    """Renames, archives or reactivates a conversation."""
    events: list[EventData] = []
    if change.name is not None:
        events.append(ConversationRenamed(name=change.name))
    if change.is_active is not None:
        events.append(ConversationReactivated() if change.is_active else ConversationArchived())
    found = await existing(here.reader, conversation)
    expected = ANY if change.expected_version is None else change.expected_version
    here.wrote(await here.store.append(found.id, events, expected=expected, actor=change.actor))
    return await _conversation(here, found.id)


@router.delete("/{conversation}", status_code=204, response_class=Response, responses=errors(NOT_FOUND))
async def delete_conversation(here: Here, conversation: str, actor: Annotated[Actor, Query()] = "") -> None:
    """Hides a conversation. Its events stay; `PATCH` with `is_active` true shows it again."""
    found = await existing(here.reader, conversation)
    here.wrote(await here.store.append(found.id, [ConversationDeleted()], actor=actor))


@router.get("/{conversation}/state", response_model=StateOut, responses=read_errors(NOT_FOUND))
async def get_state(here: Here, request: Request, conversation: str, asked: Annotated[StateQuery, Query()]) -> Response:
    """A conversation with all its messages and tasks: as it is, or as it was at a version, position or time."""
    found = await existing(here.reader, conversation)
    limits = asked.model_dump(exclude_none=True)

    async def as_it_is() -> StateOut:
        return StateOut.model_validate(await here.cache.conversation(found.id))

    async def as_it_was() -> StateOut:
        return StateOut.model_validate(await here.reader.conversation_at(found.id, **limits))

    if limits:
        return await here.read_log(request, as_it_was, mark=found.version)
    return await here.read(request, as_it_is)


async def _conversation(here: Backend, conversation_id: UUID) -> ConversationOut:
    """A conversation as it is after what was just appended."""
    await here.caught_up(("conversations",))
    return ConversationOut.model_validate(await here.reader.conversation(conversation_id))
