"""The events of a conversation, the causes and effects of one of them, and two versions compared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field

from agent_manager.audit.trail import read_causation
from agent_manager.console.chat import chat_messages, number_that_fits
from agent_manager.console.conversation import first_rows, shown_messages
from agent_manager.console.log import KNOWN_TYPES
from agent_manager.console.pages import ROOT, ConsoleRoute, models, page, wait_for_written
from agent_manager.server.authorization import Data
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.schemas.common import Cursor, In
from agent_manager.server.schemas.conversations import ConversationOut, TaskOut
from agent_manager.server.schemas.events import EventOut, event_out
from eventstore import Event
from eventstore.database.queries import query as sql_text
from eventstore.errors import NotFound
from projections.conversation_snapshot import MessagePage

router = APIRouter(prefix=f"{ROOT}/conversations/{{conversation}}", route_class=ConsoleRoute)

ROWS = 50
"""Events of a list at a time, and rows of each kind that a comparison shows."""
EFFECTS = 100
"""Causes and effects of an event that its page shows: those that are nearest to it."""
COMPARED_TEXT = 1000
"""Characters of a new message that a comparison shows."""
_VERSIONS = sql_text("agent_manager.console", "versions")


class EventsQuery(In):
    """A selection of the events of a conversation."""

    type: str = ""
    actor: str = ""
    order: Literal["oldest", "newest"] = "oldest"
    after: Cursor = None


@page(router, "/events", "events.html", Data.LOG)
async def list_events(
    context: CurrentContext, conversation: str, query: Annotated[EventsQuery, Query()]
) -> dict[str, Any]:
    """List the events of a conversation, from the log itself."""
    await wait_for_written(context)
    resolved = await get_or_404(context.reader, conversation)
    found = await context.reader.history(
        resolved.id,
        types=[query.type] if query.type else None,
        actor=query.actor or None,
        newest_first=query.order == "newest",
        limit=ROWS,
        after=query.after,
    )
    row = await context.reader.conversation(resolved.id)
    return {
        "conversation": ConversationOut.model_validate(row),
        "items": await _shown_events(context, found),
        "next": found.next,
        "filters": query,
        "known_types": KNOWN_TYPES,
    }


async def _shown_events(context: RequestContext, events: Sequence[Event]) -> list[EventOut]:
    await context.begin_large(sum(event.size for event in events))
    return await context.in_thread(list, map(event_out, events))


class CausationQuery(In):
    """The limits within which causes and effects are followed."""

    across: bool = False


@page(router, "/events/{version}/causation", "causation.html", Data.LOG)
async def show_causation(
    context: CurrentContext,
    conversation: str,
    version: Annotated[int, Path(ge=1, lt=2**31)],
    query: Annotated[CausationQuery, Query()],
) -> dict[str, Any]:
    """Show what caused an event, and what it caused: of a message the task, its artifacts and the reply."""
    resolved = await get_or_404(context.reader, conversation)
    caller: dict[str, Any] = {"tenant": context.caller.tenant, "user": context.caller.user}
    async for event in context.store.read(resolved.id, after=version - 1, until_version=version, **caller):
        found = await read_causation(context.store, context.caller, resolved.id, event.id, across=query.across)
        causes, effects = found.causes[-EFFECTS:], found.effects[: EFFECTS + 1]
        shown = await _shown_events(context, [*causes, *(effect.event for effect in effects)])
        return {
            "causes": shown[: len(causes)],
            "event": shown[len(causes)],
            "effects": list(zip((effect.depth for effect in effects[1:]), shown[len(causes) + 1 :], strict=True)),
            "more": len(found.causes) - len(causes) + len(found.effects) - len(effects),
            "across": query.across,
        }
    raise NotFound(f"conversation {resolved.id} has no event of version {version}: its page Events lists them")


class CompareQuery(In):
    """The versions to compare; by default the first and the last."""

    a: int | None = Field(None, ge=1, lt=2**31)
    b: int | None = Field(None, ge=1, lt=2**31)


@page(router, "/compare", "compare.html", Data.CONTENT, Data.PAST)
async def compare(
    context: CurrentContext, conversation: str, query: Annotated[CompareQuery, Query()]
) -> dict[str, Any]:
    """Compare a conversation at two versions."""
    resolved = await get_or_404(context.reader, conversation)
    a, b = sorted((query.a or max(1, resolved.version - 10), query.b or resolved.version))
    async with context.reader.snapshot_at(resolved.id, version=a, page=MessagePage(0)) as snapshot:
        [before] = await models(context, ConversationOut, [snapshot.conversation])
        tasks_before = {task.id: (task.version, task.status) async for task in snapshot.tasks()}
    async with context.reader.snapshot_at(resolved.id, version=b, page=MessagePage(ROWS, a + 1)) as snapshot:
        [after] = await models(context, ConversationOut, [snapshot.conversation])
        own = (row async for row in snapshot.messages() if row.conversation_id == resolved.id and row.version > a)
        added = await shown_messages(context, await first_rows(own, ROWS))
        changed = (task async for task in snapshot.tasks() if tasks_before.get(task.id, (0, ""))[0] != task.version)
        changed_tasks = await models(context, TaskOut, await first_rows(changed, ROWS))
    answered = await _answered(context, resolved.id, a, b)
    fields = ("name", "is_active", "is_deleted", "message_count", "metadata")
    added = added[: await context.in_thread(number_that_fits, added, COMPARED_TEXT)]
    return {
        "conversation": after,
        "last_version": resolved.version,
        "a": a,
        "b": b,
        "changed": [
            (name, getattr(before, name), getattr(after, name))
            for name in fields
            if getattr(before, name) != getattr(after, name)
        ],
        "added": await context.in_thread(chat_messages, added, COMPARED_TEXT),
        "more": max(0, after.message_count - before.message_count - len(added)),
        "answered": answered,
        "tasks": [(tasks_before[task.id][1] if task.id in tasks_before else None, task) for task in changed_tasks],
    }


async def _answered(context: RequestContext, conversation_id: UUID, after: int, until: int) -> list[tuple[int, str]]:
    """Return the versions of the messages up to a version whose answer was stored after it, and the outcomes."""
    outcomes: dict[UUID, str] = {}
    async for event in context.store.read(
        conversation_id,
        after=after,
        until_version=until,
        types=["message.answered"],
        limit=ROWS,
        tenant=context.caller.tenant,
        user=context.caller.user,
    ):
        with suppress(KeyError, TypeError, ValueError):  # the content of these events is not validated
            outcomes[UUID(event.content["message_id"])] = str(event.content["outcome"])
    given = {"tenant": context.caller.tenant, "conversation_id": conversation_id, "ids": list(outcomes)}
    rows = await context.store.log(context.caller).fetch(_VERSIONS, given) if outcomes else []
    return sorted((version, outcomes[identifier]) for identifier, version in rows if version <= after)
