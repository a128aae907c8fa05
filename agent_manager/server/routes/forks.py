"""Forks: conversations that continue another one from a version on, and what differs between two."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from pydantic_core import to_json
from starlette.responses import Response

from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext, encoder, write_page
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.read_your_writes import log_change_token
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.conversations import written_conversation
from agent_manager.server.routes.declarations import CONFLICT, NOT_FOUND, TOO_LARGE, reads, writes
from agent_manager.server.schemas.conversations import ConversationOut, ConversationRef, MessageOut, TaskOut
from agent_manager.server.schemas.forks import AncestorOut, AncestryOut, ComparisonOut, ComparisonQuery, NewFork
from eventstore import NO_STREAM, EventData, message_from_sent
from eventstore.forking import forked_event
from projections.conversation_snapshot import Ancestor, shared_then

router = APIRouter(prefix="/conversations/{conversation}", tags=["forks"], route_class=AuthorizedRoute)

COMPARED_BYTES = 32 * 2**20
"""The memory that each of two compared conversations may take: that of digests of all rows, and of rows that differ."""


@router.post(
    "/forks",
    status_code=201,
    response_model=ConversationOut | ConversationRef,
    **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, TOO_LARGE),
)
async def fork_conversation(
    context: CurrentContext, response: Response, conversation: str, new: NewFork
) -> ConversationOut | ConversationRef:
    """Begin a conversation that continues this one from a version on; nothing is copied.

    To edit a message, name it in `replaces`, and give the new one in `message`; or send that to the fork to have it
    answered. What the fork shares stays readable only for those who may read this conversation.
    Callers without the scope `read` get its id only.
    """
    resolved = await get_or_404(context.reader, conversation)
    context.check_writable(resolved.id)
    source, version = resolved.id, new.version
    if new.replaces is not None:
        place = await context.reader.message_place(resolved.id, new.replaces)
        source, version = place.conversation_id, place.last_version - 1
    log = context.store.log(context.caller)
    forked = await forked_event(log, context.caller.tenant, source, version, name=new.name, metadata=new.metadata)
    events: list[EventData] = [forked]
    if new.message is not None:
        given_id = new.message.get("messageId")
        events.append(message_from_sent(new.message, given_id=given_id if isinstance(given_id, str) else None))
    fork = context.new_id("fork") if new.id is None else new.id
    await context.append(fork, events, expected=NO_STREAM, claimed_actor=new.actor)
    response.headers["Location"] = f"/v1/conversations/{quote(str(fork))}"
    return await written_conversation(context, fork)


@router.get("/ancestry", response_model=AncestryOut, **reads(Data.CONTENT, NOT_FOUND))
async def get_ancestry(context: CurrentContext, conversation: str) -> Response:
    """List the conversations whose messages this one shows, the nearest first, as far as you may read them."""
    resolved = await get_or_404(context.reader, conversation)

    async def write(out: BodyWriter) -> None:
        current = await get_or_404(context.reader, resolved.id)  # not older than the change token
        shared = await shared_then(context.store, context.caller, current.id, {})
        await write_page(out, [Ancestor(current.id, current.version), *shared], encoder(AncestorOut))

    return await context.respond(await log_change_token(context.log), write, parameters=resolved.id)


@router.get(
    "/comparison",
    response_model=ComparisonOut,
    **reads(Data.CONTENT, NOT_FOUND, version=Data.PAST, other_version=Data.PAST),
)
async def compare_conversations(
    context: CurrentContext, conversation: str, query: Annotated[ComparisonQuery, Query()]
) -> Response:
    """Return what differs between this conversation and another one, or between versions (scope `audit`)."""
    resolved = await get_or_404(context.reader, conversation)
    other = resolved if query.other is None else await get_or_404(context.reader, query.other)

    async def write(out: BodyWriter) -> None:
        found = await context.reader.compare(
            resolved.id,
            other.id,
            version=query.version,
            second_version=query.other_version,
            max_bytes=COMPARED_BYTES,
        )
        shared = b"null" if found.shared is None else encoder(AncestorOut)(found.shared)
        await out.write(b'{"first":' + encoder(ConversationOut)(found.first) + b',"shared":' + shared)
        await out.write(b',"second":' + encoder(ConversationOut)(found.second))
        await out.write(b',"conversation":' + to_json(found.conversation))
        for end, model in (("", MessageOut), ("_tasks", TaskOut)):
            for name in ("removed", "added"):
                await out.write(b',"%s":[' % f"{name}{end}".encode())
                await out.write_items(getattr(found, f"{name}{end}"), encoder(model))
                await out.write(b"]")
            await out.write(b',"%s":[' % f"changed{end}".encode())
            for number, pair in enumerate(getattr(found, f"changed{end}")):
                await out.write(b",[" if number else b"[")
                await out.write_items(pair, encoder(model))
                await out.write(b"]")
            await out.write(b"]")
        await out.write(b"}")

    parameters = (resolved.id, other.id, query.model_dump())
    return await context.respond(await log_change_token(context.log), write, parameters=parameters, is_large=True)
