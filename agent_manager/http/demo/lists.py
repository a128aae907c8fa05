"""The lists of the demo: everything that a tenant has, in one answer.

A list is written as it is read, some events at a time, so it takes little memory however long it is. And it is made out
of the list before: what has not changed since is copied from there, as the bytes that it is, and only what is new is
read and encoded. Events never change, and a conversation changes only with its version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from pydantic_core import to_json

from agent_manager.agents.shapes import task_in_shape
from agent_manager.agents.wire import Shape, shape_of
from agent_manager.http.demo.files import listed
from agent_manager.http.demo.shaping import as_message, messages_of, shape_of_list, unnamed
from agent_manager.http.here import HereAndNow
from agent_manager.http.spool import BodyWriter, StoredBody
from agent_manager.manager.folding import ConversationFold
from agent_manager.manager.happened import Summary, event_view
from agent_manager.manager.log import LISTED
from agent_manager.manager.views import ConversationView, Json
from eventstore import Event, MessageAdded, sent_message

_ENTRY_BYTES = 300
"""About what an entry of an index takes."""


class _Part(NamedTuple):
    """Where something stands in a body."""

    key: int
    start: int
    end: int


class _Index(NamedTuple):
    """Of a list of tasks: the shape it is in, the version of each conversation, and where its tasks stand."""

    shape: Shape
    conversations: dict[UUID, tuple[int, list[_Part]]]

    def known(self, shape: Shape, version: int, conversation_id: UUID) -> list[_Part] | None:
        """Return the parts of a conversation if they are as they were."""
        before, parts = self.conversations.get(conversation_id, (0, []))
        return parts if (self.shape, before) == (shape, version) else None


class _Listed(NamedTuple):
    """A conversation in the list of all: what is known of it, and where it stands; nowhere if it is deleted."""

    summary: Summary
    start: int
    end: int


class _Conversations(NamedTuple):
    """The index of the list of all conversations, which is in a shape."""

    shape: Shape
    listed: dict[UUID, _Listed]


async def write_conversations(out: BodyWriter, here: HereAndNow, asked: Shape | None) -> None:
    """Write all conversations with their messages, in the order in which they began; not the deleted ones."""
    versions = await here.manager.versions()
    shape = asked or (out.previous[1].shape if out.previous is not None else None)
    while True:
        index = await _try_conversations(out, here, versions, shape, is_guess=asked is None)
        right = asked or shape_of_list(one.summary for one in index.listed.values())
        if index.shape == right:
            break
        shape = right
        out.discard()
    out.index, out.index_bytes = index, _ENTRY_BYTES * len(index.listed)


async def _try_conversations(
    out: BodyWriter, here: HereAndNow, versions: Mapping[UUID, int], shape: Shape | None, *, is_guess: bool
) -> _Conversations:
    """Write the conversations in a shape, or, if it is None, in that of the first of them.

    Args:
        is_guess: stop as soon as it turns out to be the wrong one.
    """
    body, before = out.previous or (None, None)
    known: dict[UUID, _Listed] = {}
    if before is not None and before.shape == shape:
        known = {each: one for each, one in before.listed.items() if one.summary.version == versions.get(each)}
    folds = here.manager.folds({each: version for each, version in versions.items() if each not in known})
    coming = await anext(folds, None)
    listed: dict[UUID, _Listed] = {}
    separator = b"["
    for conversation_id in versions:
        fold = coming if coming is not None and coming.id == conversation_id else None
        if fold is not None:
            coming = await anext(folds, None)
            summary = here.backend.summaries.add(here.caller.tenant, fold)
        elif conversation_id in known:
            summary = known[conversation_id].summary
        else:  # not seen any more
            continue
        shape = shape or (None if summary.is_deleted else summary.shape)
        start = end = out.size
        if not summary.is_deleted:
            await out.write(separator)
            separator = b","
            start = out.size
            if fold is not None:
                await _write_conversation(out, fold, shape or "0.3")
            else:
                assert body is not None
                await out.copy(body, known[conversation_id].start, known[conversation_id].end)
            end = out.size
        listed[conversation_id] = _Listed(summary, start, end)
        if is_guess and shape == "1.0" and summary.shape == "0.3" and not summary.is_deleted:
            break
    await out.write(b"[]" if separator == b"[" else b"]")
    return _Conversations(shape or "0.3", listed)


async def _write_conversation(out: BodyWriter, fold: ConversationFold, shape: Shape) -> None:
    await out.write(to_json(conversation_head(fold.view))[:-1] + b',"messages":[')
    await out.write_items(messages_of(fold.view, shape), to_json)
    await out.write(b"]}")


def conversation_head(view: ConversationView) -> Json:
    """A conversation as it is listed, without its messages."""
    return {
        "conversation_id": view.conversation_id,
        "is_active": view.is_active,
        "name": view.name,
        "task_ids": view.task_ids,
    }


async def write_tasks(out: BodyWriter, here: HereAndNow, asked: Shape | None) -> None:
    """Write all tasks, in the order in which they began; none of a deleted conversation."""
    seen = await here.backend.summaries.read(here.manager)
    shape = asked or shape_of_list(seen.values())
    body, before = out.previous or (None, _Index(shape, {}))
    shown = {each: one for each, one in seen.items() if one.tasks and not one.is_deleted}
    changed = {each: one.version for each, one in shown.items() if before.known(shape, one.version, each) is None}
    entries: list[tuple[int, UUID, int, StoredBody | None, _Part]] = []
    for conversation_id, one in shown.items():
        if conversation_id not in changed:
            parts = before.conversations[conversation_id][1]
            entries += [(part.key, conversation_id, one.version, body, part) for part in parts]
    new = out.another()
    try:
        made: list[tuple[UUID, int, _Part]] = []
        async for fold in here.manager.folds(changed):
            version = fold.version
            for task in list(fold.tasks.values()):
                start = new.size
                await new.write(to_json(task_in_shape(fold.wire(task), shape)))
                made.append((fold.id, version, _Part(task.position, start, new.size)))
        new_body = await new.finish()
    except BaseException:
        new.discard()
        raise
    entries += [(part.key, each, version, new_body, part) for each, version, part in made]
    index = _Index(shape, {})
    separator = b"["
    for _, conversation_id, version, source, part in sorted(entries, key=itemgetter(0)):
        await out.write(separator)
        separator = b","
        start = out.size
        assert source is not None
        await out.copy(source, part.start, part.end)
        index.conversations.setdefault(conversation_id, (version, []))[1].append(_Part(part.key, start, out.size))
    await out.write(b"[]" if separator == b"[" else b"]")
    out.index, out.index_bytes = index, _ENTRY_BYTES * (len(index.conversations) + len(entries))


class _EventsIndex(NamedTuple):
    """Of a list of events.

    Attributes:
        position: up to which the log was final.
        deleted: whether each conversation was.
    """

    shape: Shape
    position: int
    deleted: Mapping[UUID, bool]


async def write_events(out: BodyWriter, here: HereAndNow, asked: Shape | None) -> None:
    """Write what happened, oldest first; nothing of a deleted conversation."""
    position = await here.manager.position()
    seen = await here.backend.summaries.read(here.manager)
    shape = asked or shape_of_list(seen.values())
    deleted = {each: one.is_deleted for each, one in seen.items()}
    after, separator = 0, b"["
    if out.previous is not None:
        body, before = out.previous
        # Nothing up to there has become visible or hidden since: a conversation that was not there began later, unless
        # the caller is a user, with whom it may have been shared.
        is_same = before.deleted.items() <= deleted.items()
        if before.shape == shape and is_same and (here.caller.user is None or len(before.deleted) == len(deleted)):
            after, separator = before.position, b"," if body.size > len(b"[]") else b"["
            await out.copy(body, 0, body.size - 1 if separator == b"," else 0)
    events = here.store.read_log(
        after=after, until_position=position, types=LISTED, tenant=here.caller.tenant, user=here.caller.user
    )
    async for event in events:
        conversation = seen.get(event.conversation_id)
        if conversation is not None and not conversation.is_deleted:
            text = _event(event, conversation, shape)
            if text is not None:
                await out.write(separator + text)
                separator = b","
    await out.write(b"[]" if separator == b"[" else b"]")
    out.index = _EventsIndex(shape, max(after, position), deleted)
    out.index_bytes = _ENTRY_BYTES * len(deleted)


def _event(event: Event, conversation: Summary, shape: Shape) -> bytes | None:
    view = event_view(event, conversation)
    if view is None:
        return None
    return to_json(
        {
            "id": view.id,
            "actor": view.actor,
            "content": as_message(view.content, shape, view.id),
            "timestamp": view.timestamp.astimezone(UTC).timestamp(),
        }
    )


class _MessagesIndex(NamedTuple):
    """Of the messages of a conversation: its version, how many they are, and their shape."""

    version: int
    number: int
    shape: Shape | None


async def write_messages(out: BodyWriter, here: HereAndNow, conversation_id: UUID, asked: Shape | None) -> None:
    """Write the messages of a conversation, oldest first, in the shape asked for, else in that of the first."""
    version, number, shape = 0, 0, asked
    await out.write(b"[")
    if out.previous is not None:
        body, (version, number, shape) = out.previous
        await out.copy(body, 1, body.size - 1)
    events = here.store.read(
        conversation_id, after=version, types=["message.added"], tenant=here.caller.tenant, user=here.caller.user
    )
    async for event in events:
        version = event.version
        if isinstance(event.data, MessageAdded):
            sent = sent_message(event.data)
            shape = shape or shape_of(sent)
            message = as_message(sent, shape, unnamed(conversation_id, number))
            await out.write((b"," if number else b"") + to_json(listed(message, conversation_id, version)))
            number += 1
    await out.write(b"]")
    out.index, out.index_bytes = _MessagesIndex(version, number, shape), _ENTRY_BYTES
