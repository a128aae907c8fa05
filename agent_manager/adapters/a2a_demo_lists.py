"""The lists of the A2A demo's endpoints, and pages of them.

A list is written as it is read, so it takes little memory, and it is made out of the list before: items that have not
changed are copied as bytes, and only new ones are read and encoded. That is possible because events change only when
they are erased, and a conversation only with its version.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from agent_manager.a2a import Json, Version, task_in_version, version_of
from agent_manager.adapters.a2a_demo_messages import (
    as_message,
    id_of_unnamed,
    is_hidden,
    messages_of,
    read_rewinds,
    version_of_list,
    with_file_addresses,
)
from agent_manager.conversation_fold import ConversationFold, ConversationView, Summary, event_view
from agent_manager.server.context import RequestContext
from agent_manager.server.conversation_lookup import ResolvedConversation
from agent_manager.server.response_cache import BodyWriter, StoredBody
from agent_manager.storage import LISTED
from eventstore import ConversationRewound, Event, MessageAdded, sent_message
from eventstore.errors import InvalidCursor
from eventstore.event_types import RECEIPTS
from projections.pages import PAGE_BYTES

_TASK_TYPES = ("task.described", *(each for each in LISTED if each.startswith("task.")))
_ENTRY_BYTES = 300
"""The approximate memory of an entry of an index."""


class Page(NamedTuple):
    """A page that the client requests.

    Attributes:
        a2a_version: The A2A version of the page before; None for the first page.
        place: The place where the page before ended; None for the first page.
    """

    limit: int
    a2a_version: Version | None = None
    place: str | None = None


WriteList = Callable[[BodyWriter, RequestContext, Version | None, Page | None], Awaitable[None]]
"""A function that writes a list, or a page of it, in the A2A version that the client requests, if any.

If the page is not the last one, it sets the cursor of the body to its A2A version and the place where it ends.
"""


async def write_array(out: BodyWriter, items: Iterable[Any]) -> None:
    """Write a list of items."""
    await out.write(b"[")
    await out.write_items(items, to_json)
    await out.write(b"]")


class _ListedConversation(NamedTuple):
    """A conversation, and its place in the body; ``start`` equals ``end`` if it is deleted."""

    summary: Summary
    start: int
    end: int


class _ConversationsIndex(NamedTuple):
    a2a_version: Version
    listed: dict[UUID, _ListedConversation]
    is_cut: bool
    """True if the page ends before the last conversation."""


async def write_conversations(
    out: BodyWriter, context: RequestContext, requested: Version | None, page: Page | None
) -> None:
    """Write the conversations with their messages in the order of their creation, without the deleted ones.

    Without a requested version, the version of the list depends on all conversations. So the list is written in the
    version of the list before, or of the first conversation, and written again if that turns out to be wrong.
    """
    versions = await context.manager.versions()
    if page is not None:
        versions = _versions_of_page(versions, page)
    guess = requested or (out.previous[1].a2a_version if out.previous is not None else None)
    while True:
        index = await _try_conversations(out, context, versions, guess, page, is_guess=requested is None)
        needed = requested or version_of_list(each.summary for each in index.listed.values())
        if index.a2a_version == needed:
            break
        guess = needed
        out.discard()
    out.index, out.index_bytes = index, _ENTRY_BYTES * len(index.listed)
    if index.is_cut:
        out.cursor = f"{index.a2a_version} {next(reversed(index.listed)).hex}"


def _versions_of_page(versions: dict[UUID, int], page: Page) -> dict[UUID, int]:
    """Return the conversations after the one that ended the page before.

    Raises:
        InvalidCursor: That one is not visible any more.
    """
    if page.place is None:
        return versions
    ids = iter(versions)
    last = UUID(page.place)
    if last not in ids:  # consumes the ids up to the last one
        raise InvalidCursor("the conversation that ended the page before is not visible any more: begin again")
    return {id: versions[id] for id in ids}


async def _try_conversations(
    out: BodyWriter,
    context: RequestContext,
    versions: Mapping[UUID, int],
    a2a_version: Version | None,
    page: Page | None,
    *,
    is_guess: bool,
) -> _ConversationsIndex:
    """Write the conversations in an A2A version; if it is None, in that of the first conversation.

    Args:
        is_guess: Stop as soon as the version turns out to be wrong.
    """
    body, before = out.previous or (None, None)
    unchanged: dict[UUID, _ListedConversation] = {}
    if before is not None and before.a2a_version == a2a_version:
        unchanged = {id: each for id, each in before.listed.items() if each.summary.version == versions.get(id)}
    changed = {id: version for id, version in versions.items() if id not in unchanged}
    folds = context.manager.folds(changed) if page is None else _folds_of_page(context, changed, page)
    next_fold: ConversationFold | None = None
    listed: dict[UUID, _ListedConversation] = {}
    await out.write(b"[")
    separator = b""
    count, is_cut = 0, False
    for conversation_id in versions:
        fold = None
        if conversation_id in unchanged:
            summary = unchanged[conversation_id].summary
        else:
            next_fold = next_fold or await anext(folds, None)
            if next_fold is None or next_fold.id != conversation_id:  # not visible any more
                continue
            fold, next_fold = next_fold, None
            summary = context.server_context.summaries.add(context.caller.tenant, fold)
        count += not summary.is_deleted
        if page is not None and not summary.is_deleted and (count > page.limit or out.size > PAGE_BYTES):
            is_cut = True
            break
        a2a_version = a2a_version or (None if summary.is_deleted else summary.a2a_version)
        start = end = out.size
        if not summary.is_deleted:
            await out.write(separator)
            separator = b","
            start = out.size
            if fold is not None:
                await _write_conversation(out, fold, a2a_version or "0.3")
            else:
                assert body is not None
                await out.copy(body, unchanged[conversation_id].start, unchanged[conversation_id].end)
            end = out.size
        listed[conversation_id] = _ListedConversation(summary, start, end)
        if is_guess and a2a_version == "1.0" and summary.a2a_version == "0.3" and not summary.is_deleted:
            break
    await out.write(b"]")
    return _ConversationsIndex(a2a_version or "0.3", listed, is_cut)


async def _folds_of_page(
    context: RequestContext, versions: dict[UUID, int], page: Page
) -> AsyncIterator[ConversationFold]:
    """Yield conversations, and read no more of them at a time than the page holds, and the next one."""
    ids = list(versions)
    for start in range(0, len(ids), page.limit + 1):
        async for fold in context.manager.folds({id: versions[id] for id in ids[start : start + page.limit + 1]}):
            yield fold


async def _write_conversation(out: BodyWriter, fold: ConversationFold, a2a_version: Version) -> None:
    await out.write(to_json(conversation_head(fold.view))[:-1] + b',"messages":')
    await write_array(out, messages_of(fold.view, a2a_version))
    await out.write(b"}")


def conversation_head(view: ConversationView) -> Json:
    """Return a listed conversation without its messages."""
    return {
        "conversation_id": view.conversation_id,
        "is_active": view.is_active,
        "name": view.name,
        "task_ids": view.task_ids,
    }


class _ListedTask(NamedTuple):
    """The position of a task's first event, and the place of the task in a body."""

    position: int
    start: int
    end: int


class _TasksIndex(NamedTuple):
    """The version and the tasks of each conversation."""

    a2a_version: Version
    conversations: dict[UUID, tuple[int, list[_ListedTask]]]


async def write_tasks(out: BodyWriter, context: RequestContext, requested: Version | None, page: Page | None) -> None:
    """Write the tasks in the order of their creation, without those of deleted conversations."""
    listed_positions: set[int] | None = None
    end: int | None = None
    if page is None:
        summaries = await context.server_context.summaries.read(context.manager)
    else:
        begun, end = await _events_of_page(context, _TASK_TYPES, page, _begins_task)
        summaries = {event.conversation_id: summary for event, summary in begun}
        listed_positions = {event.position for event, _ in begun}
    a2a_version = requested or version_of_list(summaries.values())
    if end is not None:
        out.cursor = f"{a2a_version} {end}"
    body, before = out.previous or (None, None)
    listed_before = before.conversations if before is not None and before.a2a_version == a2a_version else {}
    entries: list[tuple[_ListedTask, UUID, int, StoredBody | None]] = []
    changed: dict[UUID, int] = {}
    for conversation_id, summary in summaries.items():
        if not summary.tasks or summary.is_deleted:
            continue
        version, tasks = listed_before.get(conversation_id, (0, []))
        if version == summary.version:
            entries += [(task, conversation_id, version, body) for task in tasks]
        else:
            changed[conversation_id] = summary.version
    new = out.another()
    try:
        encoded: list[tuple[_ListedTask, UUID, int]] = []
        async for fold in context.manager.folds(changed):
            version = fold.version
            for task in list(fold.tasks.values()):
                if listed_positions is not None and task.position not in listed_positions:
                    continue
                start = new.size
                await new.write(to_json(task_in_version(fold.wire(task), a2a_version)))
                encoded.append((_ListedTask(task.position, start, new.size), fold.id, version))
        new_body = await new.finish()
    except BaseException:
        new.discard()
        raise
    entries += [(*entry, new_body) for entry in encoded]
    index = _TasksIndex(a2a_version, {})
    await out.write(b"[")
    separator = b""
    for listed, conversation_id, version, source in sorted(entries, key=itemgetter(0)):
        await out.write(separator)
        separator = b","
        start = out.size
        assert source is not None
        await out.copy(source, listed.start, listed.end)
        _, tasks = index.conversations.setdefault(conversation_id, (version, []))
        tasks.append(_ListedTask(listed.position, start, out.size))
    await out.write(b"]")
    if page is None:  # a page may hold a part of a conversation's tasks
        out.index, out.index_bytes = index, _ENTRY_BYTES * (len(index.conversations) + len(entries))


def _begins_task(event: Event, conversation: Summary) -> bool:
    """Return whether an event is the first one of its task."""
    task_id = getattr(event.data, "task_id", None)
    return task_id in conversation.tasks and conversation.tasks[task_id][1] == event.position


async def _events_of_page(
    context: RequestContext,
    types: Sequence[str],
    page: Page,
    is_listed: Callable[[Event, Summary], bool] = lambda event, conversation: True,
) -> tuple[list[tuple[Event, Summary]], int | None]:
    """Return the events of a page, each with its conversation, and the position where the page ends.

    Events of deleted conversations are left out. A page ends before its limit if the events that were read for it take
    more than :data:`PAGE_BYTES`. The position is None if no event follows.
    """
    caller, manager = context.caller, context.manager
    position, after, size = await manager.position(), int(page.place or 0), 0
    versions = await manager.versions()
    found: list[tuple[Event, Summary]] = []
    while len(found) <= page.limit and size <= PAGE_BYTES:
        events: list[Event] = []
        wanted = page.limit + 1 - len(found)
        reading = context.store.read_log(
            after=after,
            until_position=position,
            limit=wanted,
            types=types,
            tenant=caller.tenant,
            user=caller.user,
        )
        async for event in reading:
            events.append(event)
            size += event.size
            if size > PAGE_BYTES:
                break
        if not events:
            return found, None
        is_last = len(events) < wanted and size <= PAGE_BYTES
        after = events[-1].position
        ids = {event.conversation_id for event in events} & versions.keys()
        summaries = await context.server_context.summaries.read(manager, {id: versions[id] for id in ids})
        found += [
            (event, summary)
            for event in events
            if (summary := summaries.get(event.conversation_id)) is not None
            and not summary.is_deleted
            and is_listed(event, summary)
        ]
        if is_last:
            return found, None
    listed = found[: page.limit]
    return listed, listed[-1][0].position if len(found) > page.limit else after


class _EventsIndex(NamedTuple):
    """The index of a list of events.

    Attributes:
        position: The position up to which the log was final.
        deleted: Whether each conversation was deleted.
    """

    a2a_version: Version
    position: int
    deleted: Mapping[UUID, bool]


async def write_events(out: BodyWriter, context: RequestContext, requested: Version | None, page: Page | None) -> None:
    """Write the events, oldest first, without those of deleted conversations."""
    if page is not None:
        listed, end = await _events_of_page(context, LISTED, page)
        version = requested or version_of_list(summary for _, summary in listed)
        if end is not None:
            out.cursor = f"{version} {end}"
        encoded_events = (_encode_event(event, summary, version) for event, summary in listed)
        await out.write(b"[")
        await out.write_items(filter(None, encoded_events), lambda encoded: encoded)
        await out.write(b"]")
        return
    position = await context.manager.position()
    summaries = await context.server_context.summaries.read(context.manager)
    a2a_version = requested or version_of_list(summaries.values())
    deleted = {id: summary.is_deleted for id, summary in summaries.items()}
    after, separator = 0, b""
    body, before = out.previous or (None, None)
    if (
        body is not None
        and before is not None
        and _is_prefix(before, a2a_version, deleted, context.caller.user)
        and not await _has_changes(context, before.position, position)
    ):
        after, separator = before.position, b"," if body.size > len(b"[]") else b""
        await out.copy(body, 0, body.size - 1)
    else:
        await out.write(b"[")
    events = context.store.read_log(
        after=after, until_position=position, types=LISTED, tenant=context.caller.tenant, user=context.caller.user
    )
    async for event in events:
        summary = summaries.get(event.conversation_id)
        if summary is not None and not summary.is_deleted:
            encoded = _encode_event(event, summary, a2a_version)
            if encoded is not None:
                await out.write(separator + encoded)
                separator = b","
    await out.write(b"]")
    out.index = _EventsIndex(a2a_version, max(after, position), deleted)
    out.index_bytes = _ENTRY_BYTES * len(deleted)


def _is_prefix(before: _EventsIndex, a2a_version: Version, deleted: Mapping[UUID, bool], user: str | None) -> bool:
    """Return whether the list before is of the same conversations as the beginning of the new one.

    It is if none has become visible or hidden since. A conversation that is not in it began later,
    unless the caller is a user, with whom an old one may have been shared.
    """
    is_unchanged = before.a2a_version == a2a_version and before.deleted.items() <= deleted.items()
    return is_unchanged and (user is None or len(before.deleted) == len(deleted))


async def _has_changes(context: RequestContext, after: int, until: int) -> bool:
    """Return whether events between two positions hide or erase earlier ones of the same conversation."""
    caller, types = context.caller, ["conversation.rewound", "task.deleted", *RECEIPTS]
    changes = context.store.read_log(
        after=after, until_position=until, types=types, limit=1, tenant=caller.tenant, user=caller.user
    )
    return [change async for change in changes] != []


def _encode_event(event: Event, conversation: Summary, a2a_version: Version) -> bytes | None:
    view = event_view(event, conversation)
    if view is None:
        return None
    return to_json(
        {
            "id": view.id,
            "actor": view.actor,
            "content": as_message(view.content, a2a_version, view.id),
            "timestamp": view.timestamp.astimezone(UTC).timestamp(),
        }
    )


class _MessagesIndex(NamedTuple):
    """The index of the messages of a conversation.

    Attributes:
        known: The version of the conversation up to which the list has applied all changes of earlier messages.
        version: The version of the last message.
        messages: The number of the messages.
    """

    known: int
    version: int
    messages: int
    a2a_version: Version | None


async def write_messages(
    out: BodyWriter,
    context: RequestContext,
    conversation: ResolvedConversation,
    requested: Version | None,
    page: Page | None,
) -> None:
    """Write the messages of a conversation, oldest first, in the requested version or that of the first message."""
    before = _MessagesIndex(0, 0, 0, None)
    await out.write(b"[")
    if page is None and out.previous is not None and await _is_beginning(context, conversation.id, out.previous[1]):
        body, before = out.previous
        await out.copy(body, 1, body.size - 1)
    elif page is not None and page.place is not None:
        last_version, earlier = map(int, page.place.split())
        before = _MessagesIndex(0, last_version, earlier, None)
    version, count, a2a_version = before.version, before.messages, requested or before.a2a_version
    separator = b"," if page is None and count else b""
    rewinds = await read_rewinds(context.reader, conversation.id, version)
    events = context.store.read(
        conversation.id,
        after=version,
        types=["message.added"],
        limit=None if page is None or rewinds else page.limit + 1,
        tenant=context.caller.tenant,
        user=context.caller.user,
    )
    async for event in events:
        if not isinstance(event.data, MessageAdded) or is_hidden(event.version, rewinds):
            continue
        if page is not None and (count - before.messages == page.limit or out.size > PAGE_BYTES):
            out.cursor = f"{a2a_version} {version} {count}"
            break
        version = event.version
        sent = sent_message(event.data)
        a2a_version = a2a_version or version_of(sent)
        message = as_message(sent, a2a_version, id_of_unnamed(conversation.id, count))
        await out.write(separator + to_json(with_file_addresses(message, conversation.id, version)))
        separator = b","
        count += 1
    await out.write(b"]")
    if page is None:
        out.index = _MessagesIndex(conversation.version, version, count, a2a_version)
        out.index_bytes = _ENTRY_BYTES


async def _is_beginning(context: RequestContext, conversation_id: UUID, before: _MessagesIndex) -> bool:
    """Return whether the new list begins with all messages of the list before, as they were."""
    caller = context.caller
    types = ["conversation.rewound", *RECEIPTS]
    async for event in context.store.read(
        conversation_id, after=before.known, types=types, tenant=caller.tenant, user=caller.user
    ):
        if not isinstance(event.data, ConversationRewound) or event.data.to_version < before.version:
            return False
    return True
