"""The list of conversations, its search, and its lists of failed tasks and of messages that await an answer."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from agent_manager.console.chat import status_text
from agent_manager.console.pages import ROOT, ConsoleRoute, models, page, wait_for_written
from agent_manager.server.authorization import Data
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.schemas.common import Cursor, In, Time
from agent_manager.server.schemas.conversations import ConversationOut
from eventstore import TaskStatus
from eventstore.database.queries import query as sql_text
from eventstore.errors import InvalidCursor
from projections import Search, Task
from projections.rows import ERASED_MARK

router = APIRouter(prefix=f"{ROOT}/conversations", route_class=ConsoleRoute)

ROWS = 50
"""Rows of a list at a time; further ones follow as one scrolls."""
_FOUND = sql_text("agent_manager.console", "found")
_AWAITING = sql_text("agent_manager.console", "awaiting")


class ListQuery(In):
    """A selection of conversations, or the results of a search, failed tasks, or messages that await an answer."""

    q: str = Field("", max_length=10_000)
    state: Literal["active", "archived", "all", "deleted", "failed", "pending"] = "all"
    by: Literal["updated", "created"] = "updated"
    actor: str = ""
    since: Time | Literal[""] | None = None
    until: Time | Literal[""] | None = None
    after: Cursor = None

    def range(self) -> dict[str, Any]:
        """Return the time and the size of the list."""
        return {"since": self.since or None, "until": self.until or None, "limit": ROWS}


@page(router, "", "conversations.html", Data.CONTENT)
async def list_conversations(context: CurrentContext, query: Annotated[ListQuery, Query()]) -> dict[str, Any]:
    """List conversations, the last updated first, or the results of a search."""
    shown: dict[str, Any] = {"hits": [], "items": [], "searched": "", "filters": query}
    if query.q.strip():
        return shown | await _search(context, query)
    await wait_for_written(context)
    if query.state == "failed":
        return shown | await _failed(context, query)
    if query.state == "pending":
        return shown | await _pending(context, query)
    found = await context.reader.conversations(
        active={"active": True, "archived": False}.get(query.state),
        deleted=query.state == "deleted",
        by=query.by,
        after=query.after,
        actor=query.actor or None,
        **query.range(),
    )
    rows = [row for row in found if query.state != "deleted" or row.is_deleted]
    return shown | {"items": await models(context, ConversationOut, rows), "next": found.next}


async def _search(context: RequestContext, query: ListQuery) -> dict[str, Any]:
    await wait_for_written(context, ("search",))
    wanted = completed(query.q)
    found = await Search(context.store, caller=context.caller).page(
        wanted, after=context.open_cursor(query.after), actor=query.actor or None, **query.range()
    )
    hits = [
        {
            "kind": hit.kind, "conversation_id": hit.conversation_id, "id": hit.id, "version": hit.version,
            "role": hit.role, "actor": hit.actor, "created_at": hit.created_at, "snippet": hit.snippet,
            "is_erased": False,
        }
        for hit in found
    ]  # fmt: skip
    following = None if found.next is None else context.server_context.sealing.seal_cursor(context.caller, found.next)
    return {
        "hits": await _with_conversations(context, query.model_copy(update={"actor": ""}), hits),
        "next": following,
        "searched": "" if found.searched == wanted else found.searched,
    }


def completed(text: str) -> str:
    """Return a query whose last word may be incomplete, as one types it."""
    is_plain = text.count('"') % 2 == 0 and re.search(r"(?<![\w-])\w{2,}$", text) and not text.endswith((" or", " ou"))
    return f"{text}*" if is_plain else text


async def _failed(context: RequestContext, query: ListQuery) -> dict[str, Any]:
    found = await context.reader.tasks(status=TaskStatus.FAILED, newest_first=True, after=query.after, **query.range())
    hits: list[dict[str, Any]] = await context.in_thread(list, map(_failed_hit, found))
    return {"hits": await _with_conversations(context, query, hits), "next": found.next}


def _failed_hit(task: Task) -> dict[str, Any]:
    return {
        "kind": "task", "conversation_id": task.conversation_id, "id": task.id, "version": task.version,
        "role": None, "actor": "", "created_at": task.updated_at,
        "snippet": " – ".join(filter(None, (task.description, status_text(task.status_message))))[:400],
        "is_erased": task.is_erased,
    }  # fmt: skip


async def _pending(context: RequestContext, query: ListQuery) -> dict[str, Any]:
    """Return the messages that await an answer, the oldest first."""
    after = context.open_cursor(query.after) or "0"
    if not after.isdigit():
        raise InvalidCursor("after: this cursor is of another list: begin without it")
    given = {"tenant": context.caller.tenant, "after": int(after), "limit": ROWS, "mark": ERASED_MARK}
    given |= {"since": query.since or None, "until": query.until or None}
    rows = await context.store.tables(context.caller).fetch(_AWAITING, given)
    names = ("conversation_id", "id", "version", "role", "actor", "created_at", "snippet", "is_erased")
    hits = [dict(zip(names, row, strict=False)) | {"kind": "message"} for row in rows]
    following = None
    if len(rows) == ROWS:
        following = context.server_context.sealing.seal_cursor(context.caller, str(rows[-1][-1]))
    return {"hits": await _with_conversations(context, query, hits), "next": following}


async def _with_conversations(
    context: RequestContext, query: ListQuery, hits: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return hits with the names of their conversations, if these have the state and the actor of a query."""
    given = {
        "tenant": context.caller.tenant,
        "ids": list({hit["conversation_id"] for hit in hits}),
        "actor": query.actor or None,
    }
    rows = await context.store.tables(context.caller).fetch(_FOUND, given)
    known = {identifier: (name, active, deleted, actor) for identifier, name, active, deleted, actor in rows}
    states = {"active": (True, False), "archived": (False, False), "deleted": (None, True)}
    shown = []
    for hit in hits:
        # Its projection may be behind that of the search.
        name, is_active, is_deleted, has_actor = known.get(hit["conversation_id"], ("", True, False, True))
        wanted = states.get(query.state, (None, False))
        if is_deleted is wanted[1] and wanted[0] in (None, is_active) and (has_actor or not query.actor):
            shown.append(hit | {"name": name})
    return shown
