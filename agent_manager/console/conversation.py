"""A conversation as a chat, as it is or was, live; its files; and its changes: names, states, forks and members."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from agent_manager.adapters.a2a_demo_messages import File, file_response, find_file
from agent_manager.auth import TokenScope
from agent_manager.console.chat import (
    MAX_LIST,
    MAX_LIVE,
    MAX_WHOLE,
    ChatMessage,
    TimelineTask,
    add_ended,
    artifact_file,
    chat_messages,
    large_message,
    number_that_fits,
    timeline,
)
from agent_manager.console.pages import ROOT, ConsoleRoute, form, models, page, redirect, wait_for_written
from agent_manager.console.retention import holds_on
from agent_manager.retention import Hold
from agent_manager.server.authorization import Data, needs
from agent_manager.server.context import PARSED_BYTES, CurrentContext, RequestContext
from agent_manager.server.conversation_lookup import ResolvedConversation, get_or_404, resolve
from agent_manager.server.operators import ACTOR
from agent_manager.server.routes import conversations as api
from agent_manager.server.routes import forks as forks_api
from agent_manager.server.routes import members as members_api
from agent_manager.server.schemas.common import Cursor, In, Time
from agent_manager.server.schemas.conversations import (
    Actor,
    ConversationChange,
    ConversationOut,
    MessageOut,
    Name,
    StateQuery,
    TaskOut,
)
from agent_manager.server.schemas.forks import NewFork
from eventstore.errors import NotFound
from eventstore.read import end_of_log
from projections import Message, Task
from projections.conversation_snapshot import MessagePage
from projections.pages import PAGE_BYTES
from projections.rows import ReadTableRow

router = APIRouter(prefix=f"{ROOT}/conversations/{{conversation}}", route_class=ConsoleRoute)

ROWS = 50
"""Messages of a page, and members that it lists."""
LIVE_ROWS = 200
"""Messages that a page that is looked at takes at a time."""
REMOVALS = 5
"""Erasures of a conversation that its page names: the latest."""
WATCH_SECONDS = 0.2
"""The least time between two looks at a conversation that is watched: a page takes all changes in between at once."""
_Row = TypeVar("_Row", bound=ReadTableRow)


class ChatQuery(In):
    """A selection of messages: the latest, or those from a version on; as they are, or were at a version or time."""

    version: int | None = Field(None, ge=1, lt=2**31)
    time: Time | Literal[""] | None = None
    first: int | None = Field(None, ge=1, lt=2**31, alias="from")
    older: Cursor = None
    newer: Cursor = None
    after: int | None = Field(None, ge=0, lt=2**31)


@page(router, "", "conversation.html", Data.CONTENT, version=Data.PAST, time=Data.PAST)
async def show_conversation(
    context: CurrentContext, conversation: str, query: Annotated[ChatQuery, Query()]
) -> dict[str, Any]:
    """Show a conversation as a chat, with its tasks and members."""
    resolved = await get_or_404(context.reader, conversation)
    if query.version is not None or query.time:
        return await _past(context, resolved, query)
    # A page that is looked at asks because of a change that the read tables may not hold yet.
    at_least = 0 if query.after is None else await end_of_log(context.log)
    await wait_for_written(context, at_least=at_least, is_resolved=True)
    row, (messages, older, newer), found = await asyncio.gather(
        context.reader.conversation(resolved.id),
        _window(context, resolved.id, query),
        context.reader.tasks(resolved.id, newest_first=True, limit=LIVE_ROWS),
    )
    tasks = await models(context, TaskOut, found[::-1])
    is_last = newer is None and query.older is None
    data = await _chat(context, resolved, ConversationOut.model_validate(row), messages, tasks, query, is_last=is_last)
    return data | {"older": older, "newer": newer, "is_past": False}


async def _window(
    context: RequestContext, conversation_id: UUID, query: ChatQuery
) -> tuple[list[MessageOut], str | None, str | None]:
    """Return the messages to show, in their order, and the cursors of the older and the newer ones."""
    is_forward = query.newer is not None or query.first is not None or query.after is not None
    options: dict[str, Any] = {"newest_first": not is_forward, "after": query.newer if is_forward else query.older}
    if is_forward:
        options["after_version"] = query.after if query.after is not None else (query.first or 1) - 1
    limit, most = (ROWS, MAX_LIST) if query.after is None else (LIVE_ROWS, MAX_LIVE)
    found = await context.reader.messages(conversation_id, limit=limit, **options)
    messages = await shown_messages(context, found)
    fitting = await context.in_thread(partial(number_that_fits, messages, most=most))
    if fitting < len(messages):
        found = await context.reader.messages(conversation_id, limit=fitting, **options)  # for its cursor
        messages = messages[:fitting]
    if is_forward:
        return messages, None, found.next
    return messages[::-1], found.next, None


async def shown_messages(context: RequestContext, rows: Sequence[Message]) -> list[MessageOut]:
    """Return messages of a list. Of large ones only the text is shown, so nothing else of them is parsed."""
    whole = iter(await models(context, MessageOut, [row for row in rows if row.size <= PARSED_BYTES]))
    return [next(whole) if row.size <= PARSED_BYTES else large_message(row) for row in rows]


async def _past(context: RequestContext, resolved: ResolvedConversation, query: ChatQuery) -> dict[str, Any]:
    """Return the data of a conversation as it was: the last messages, or those from a version on."""
    as_of: dict[str, Any] = {"version": query.version} if query.version is not None else {"time": query.time}
    first = query.first
    async with context.reader.snapshot_at(resolved.id, **as_of, page=MessagePage(ROWS, first)) as snapshot:
        if first is not None:
            rows = await first_rows((row async for row in snapshot.messages() if row.version >= first), ROWS)
        else:
            rows = (await _last_rows(snapshot.messages(), ROWS))[::-1]
        tasks = await first_rows(snapshot.tasks(), LIVE_ROWS)
    messages = await shown_messages(context, rows)
    shown = messages[: await context.in_thread(number_that_fits, messages)]
    [conversation] = await models(context, ConversationOut, [snapshot.conversation])
    data = await _chat(
        context,
        resolved,
        conversation,
        shown if first is not None else shown[::-1],
        await models(context, TaskOut, tasks),
        query,
        is_last=first is None,
    )
    return data | {"older": None, "newer": None, "is_past": True}


async def first_rows(rows: AsyncGenerator[_Row, None], limit: int) -> list[_Row]:
    """Return the first rows: at most so many, and no more than a page has bytes."""
    found: list[_Row] = []
    size = 0
    async with aclosing(rows):
        async for row in rows:
            found.append(row)
            size += row.size
            if len(found) == limit or size > PAGE_BYTES:
                break
    return found


async def _last_rows(rows: AsyncGenerator[_Row, None], limit: int) -> list[_Row]:
    """Return the last rows: at most so many, and no more than a page has bytes."""
    found: deque[_Row] = deque()
    size = 0
    async for row in rows:
        found.append(row)
        size += row.size
        while len(found) > limit or (size > PAGE_BYTES and len(found) > 1):
            size -= found.popleft().size
    return list(found)


async def _chat(
    context: RequestContext,
    resolved: ResolvedConversation,
    conversation: ConversationOut,
    messages: Sequence[MessageOut],
    tasks: Sequence[TaskOut],
    query: ChatQuery,
    *,
    is_last: bool,
) -> dict[str, Any]:
    until = None if query.version is None and not query.time else conversation.updated_at
    own = [
        message.version for message in messages if message.conversation_id == conversation.id
    ]  # not what a fork shares

    def show() -> tuple[list[ChatMessage], list[TimelineTask]]:
        chat = chat_messages(messages)
        add_ended(
            [each for each in chat if each.message.conversation_id == conversation.id],
            [task for task in tasks if task.conversation_id == conversation.id],
            is_last=is_last,
        )
        return chat, timeline(tasks, until)

    chat, shown_tasks = await context.in_thread(show)
    members: list[dict[str, Any]] = []
    holds: list[Hold] = []
    removals: list[dict[str, Any]] = []
    if context.request.headers.get("hx-target") != "older":  # which takes the messages only
        members, removals = await asyncio.gather(_members(context, resolved.id), _removals(context, conversation))
        owners = [member["user"] for member in members if member["access"] == "own"]
        if context.identity.may(TokenScope.ADMIN) and not (query.version or query.time):
            holds = await holds_on(context, resolved.id, owners)
    return {
        "conversation": conversation,
        "last_version": resolved.version,
        "messages": chat,
        "first_version": messages[0].version if messages else 0,
        "seen": own[-1] if own and not is_last else max([*own[-1:], conversation.version]),
        "tasks": shown_tasks,
        "task_number": len(tasks),
        "members": members,
        "holds": holds,
        "removals": removals,
        "at": query,
        "may_write": context.identity.may(TokenScope.WRITE),
    }  # fmt: skip


async def _removals(context: RequestContext, conversation: ConversationOut) -> list[dict[str, Any]]:
    """Return who erased some of a conversation, why and when, and who deleted it, for callers who may see events."""
    if not context.identity.may(TokenScope.AUDIT):
        return []
    types = ["conversation.erased", "event.erased", *["conversation.deleted"] * conversation.is_deleted]
    found = await context.reader.history(conversation.id, types=types, newest_first=True, limit=REMOVALS)
    return [
        {
            "kind": event.event_type.partition(".")[2],
            "actor": event.actor,
            "reason": event.content.get("reason"),
            "time": event.timestamp,
            "position": event.position,
        }
        for event in found
    ]


async def _members(context: RequestContext, conversation_id: UUID) -> list[dict[str, Any]]:
    """Return the first members of a conversation, with who shared it with them."""
    sharings = await _sharings(context, conversation_id)
    members = []
    async for user, access in members_api.members_of(context, conversation_id):
        members.append({"user": user, "access": access, "sharing": sharings.get(user)})
        if len(members) == ROWS:
            break
    return members


async def _sharings(context: RequestContext, conversation_id: UUID) -> dict[str, dict[str, Any]]:
    """Return by user who shared a conversation with them last, and when, for callers who may see events."""
    if not context.identity.may(TokenScope.AUDIT):
        return {}
    found = await context.reader.history(
        conversation_id, types=["conversation.shared"], newest_first=True, limit=2 * ROWS
    )
    return {
        event.content.get("user", ""): {"actor": event.actor, "time": event.timestamp}
        for event in reversed(list(found))
    }


@router.get("/live", openapi_extra=needs(Data.CONTENT))
async def watch(context: CurrentContext, conversation: str, after: int = 0) -> Response:
    """Send an event with the version whenever the conversation changes, without its content."""
    resolved = await get_or_404(context.reader, conversation)
    return context.stream_texts(_changes(context, resolved.id, after), after)


async def _changes(context: RequestContext, conversation_id: UUID, after: int) -> AsyncGenerator[bytes, None]:
    notifier = context.tenant_context.change_notifier
    await notifier.open()
    with notifier.changes(conversation_id) as changed:
        version = after
        while True:
            changed.clear()
            resolved = await resolve(context.reader, conversation_id)
            if resolved is None:
                return
            if resolved.version > version:
                version = resolved.version
                yield b"id: %d\nevent: change\ndata: %d\n\n" % (version, version)
            await asyncio.sleep(WATCH_SECONDS)
            await changed.wait()
            await notifier.open()


@page(router, "/messages/{version}", "message.html", Data.CONTENT)
async def show_message(
    context: CurrentContext, conversation: str, version: Annotated[int, Path(ge=1, lt=2**31)]
) -> dict[str, Any]:
    """Show a message whole."""
    resolved = await get_or_404(context.reader, conversation)
    await context.begin_large(PARSED_BYTES + 1)  # its size is known when it was read
    row = await context.reader.conversation(resolved.id)
    found = await context.reader.messages(resolved.id, after_version=version - 1, limit=1)
    messages = await models(context, MessageOut, [each for each in found if each.version == version])
    return {
        "conversation": ConversationOut.model_validate(row),
        "messages": await context.in_thread(chat_messages, messages, MAX_WHOLE, MAX_WHOLE),
        "sent": messages[0].sent if messages else None,
    }


@router.get("/files/{file_id}", openapi_extra=needs(Data.CONTENT))
async def show_file(
    context: CurrentContext, conversation: str, file_id: str, download: Annotated[bool, Query()] = False
) -> Response:
    """Return a file of a message, as the API does: a browser runs nothing of it."""
    return await file_response(await find_file(context.reader, file_id), is_download=download)


Number = Annotated[int, Path(ge=0, lt=2**31)]


@router.get("/tasks/{task}/artifacts/{artifact}/{part}", openapi_extra=needs(Data.CONTENT, version=Data.PAST))
async def download_artifact(
    context: CurrentContext,
    conversation: str,
    task: UUID,
    artifact: Number,
    part: Number,
    version: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
) -> Response:
    """Return a part of an artifact as a file, as it is, or was at a version."""
    resolved = await get_or_404(context.reader, conversation)
    if version is None:
        tasks: Sequence[Task] = await context.reader.tasks(resolved.id, newest_first=True, limit=LIVE_ROWS)
    else:
        async with context.reader.snapshot_at(resolved.id, version=version, page=MessagePage(0)) as snapshot:
            tasks = await first_rows((each async for each in snapshot.tasks() if each.id == task), 1)

    def find() -> File | None:
        found = next((TaskOut.model_validate(each) for each in tasks if each.id == task), None)
        return None if found is None else artifact_file(found, artifact, part)

    file = await context.in_thread(find)
    if file is None:
        raise NotFound(f"task {task} has no such artifact, or only its URL is stored: open the conversation again")
    return await file_response(file, is_download=True)


@router.get("/export.json", openapi_extra=needs(Data.CONTENT))
async def export(context: CurrentContext, conversation: str) -> Response:
    """Return the conversation as the API does, as a file."""
    response = await api.get_state(context, conversation, StateQuery.model_validate({}))
    response.headers["Content-Disposition"] = 'attachment; filename="conversation.json"'
    return response


# Changes


@router.post("/rename", openapi_extra=needs(Data.CONVERSATION))
@router.post("/state", openapi_extra=needs(Data.CONVERSATION))
async def change(
    context: CurrentContext, conversation: str, fields: Annotated[ConversationChange, form(ConversationChange)]
) -> Response:
    """Rename a conversation, archive or reactivate it."""
    done = await api.change_conversation(context, conversation, fields.model_copy(update={"actor": ACTOR}))
    return redirect(context, f"conversations/{done.id}")


class ForkIn(In):
    """The place where a fork begins."""

    version: int = Field(ge=1, lt=2**31 - 1)
    name: Name = ""


@router.post("/fork", openapi_extra=needs(Data.CONVERSATION))
async def fork(context: CurrentContext, conversation: str, fields: Annotated[ForkIn, form(ForkIn)]) -> Response:
    """Begin a conversation that continues this one from a version on, and show it."""
    new = NewFork.model_validate({"version": fields.version, "name": fields.name or None, "actor": ACTOR})
    done = await forks_api.fork_conversation(context, Response(), conversation, new)
    return redirect(context, f"conversations/{done.id}")


class DeleteIn(In):
    """A confirmed deletion."""

    actor: Actor = ACTOR


@router.post("/delete", openapi_extra=needs(Data.CONVERSATION))
async def delete(context: CurrentContext, conversation: str, fields: Annotated[DeleteIn, form(DeleteIn)]) -> Response:
    """Hide a conversation; it can be reactivated."""
    resolved = await get_or_404(context.reader, conversation)
    await api.delete_conversation(context, conversation, fields.actor)
    return redirect(context, f"conversations/{resolved.id}")


class ShareIn(members_api.MemberIn):
    """A user with whom to share a conversation, or not any more."""

    access: Literal["read", "write", "none"] = "read"  # type: ignore[assignment]  # "none" is the form's own


@router.post("/members", openapi_extra=needs(Data.CONVERSATION))
async def share(context: CurrentContext, conversation: str, fields: Annotated[ShareIn, form(ShareIn)]) -> Response:
    """Share a conversation with a user, change their access, or stop sharing it."""
    resolved = await get_or_404(context.reader, conversation)
    if fields.access == "none":
        await members_api.unshare(context, conversation, fields.user)
    else:
        await members_api.share(context, conversation, members_api.MemberIn(user=fields.user, access=fields.access))
    return redirect(context, f"conversations/{resolved.id}")
