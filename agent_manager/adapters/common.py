"""What the adapters of several frameworks share: the open store, and messages in a framework's own form.

A message is stored as the vocabulary has it, so that the console, search and other frameworks read it: its text, or the
parts of A2A. The form that the framework gave it is kept beside that, in ``extra``, with null in place of what the text
or the parts hold already; reading puts it back.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID, uuid4

from psycopg.types.numeric import Int4

from agent_manager.a2a import Json, parts_text
from agent_manager.adapters.blobs import load_files, store_files
from agent_manager.storage import append_persistently
from eventstore import (
    ANY,
    EXISTS,
    NO_STREAM,
    Append,
    AppendResult,
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    EventStore,
    ExpectedVersion,
    MessageAdded,
    NewEvent,
    Role,
    SyncEventStore,
    TaskArtifactAdded,
    conversation_uuid,
)
from eventstore.append import append_or_begin, encode_expected
from eventstore.database.queries import query
from eventstore.errors import ConversationIsDeleted, InputError, InvalidEvent, WrongExpectedVersion
from eventstore.events import HIGHEST_VERSION
from eventstore.json_text import from_json, to_json
from eventstore.member_order import restore, restore_members
from eventstore.read import RawRows

T = TypeVar("T")

_LATEST_EVENTS = query("agent_manager.adapters", "latest_events")
_PAGE = 2000
"""Events that one statement reads at most."""
_WITH_PARTS = ("message.added", "task.artifact_added")
"""The types of the events that adapters store with parts."""
_MORE_EVENTS = 16
"""Events that a read of the latest items fetches beyond them, for those that are not items."""


class Access:
    """An open store, as adapters read and write it.

    An :class:`EventStore` may be used in its own event loop only. A :class:`SyncEventStore` has a loop of its own, so
    any loop and any thread may use it.

    Raises:
        InputError: it is not a store.
    """

    def __init__(self, store: EventStore | SyncEventStore) -> None:
        if not isinstance(store, EventStore | SyncEventStore):
            raise InputError(f"store: expected an EventStore or a SyncEventStore, got a {type(store).__name__}")
        self._synchronous = store if isinstance(store, SyncEventStore) else None
        self.store = store.asynchronous if isinstance(store, SyncEventStore) else store

    async def read(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the store's loop."""
        return await (coroutine if self._synchronous is None else self._synchronous.portal.run(coroutine))

    async def write(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the store's loop to its end, even if the caller is cancelled meanwhile.

        The cancellation is raised when the outcome is certain, so that a caller who reads then sees it.
        """
        task = asyncio.ensure_future(self.read(coroutine))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # mark it as retrieved
            raise

    def conversation_id(self, given_id: str) -> UUID:
        """Return the id of the conversation that has an id of the framework."""
        return _named(self.store.tenant, given_id)[0]

    async def append(
        self, given_id: str, events: Sequence[NewEvent], user: str | None, expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """Append to the conversation that has an id of the framework; begin it, or reactivate it, if necessary.

        Large files are stored beside the events (:mod:`agent_manager.adapters.blobs`).
        """
        conversation_id, begin = _named(self.store.tenant, given_id)
        events = [await self._without_large_files(event) for event in events]
        caller = self.store.caller(user=user)

        async def append(events: Sequence[Any], expected: ExpectedVersion) -> AppendResult:
            return await append_persistently(self.store, caller, conversation_id, events, expected)

        try:
            if expected != ANY and encode_expected(expected) != encode_expected(NO_STREAM):
                return await append(events, expected)
            return await append_or_begin(append, Append(conversation_id, events, expected), begin)
        except ConversationIsDeleted:
            # Readers begin after the deletion, so it does no harm if several writers reactivate the conversation.
            return await append([NewEvent(ConversationReactivated()), *events], EXISTS if expected == ANY else expected)

    async def _without_large_files(self, event: NewEvent) -> NewEvent:
        data = event.data
        if not isinstance(data, MessageAdded | TaskArtifactAdded) or not data.parts:
            return event
        return replace(event, data=data.model_copy(update={"parts": await store_files(self.store, data.parts)}))

    async def delete(self, given_id: str, user: str | None) -> None:
        """Delete a conversation; do nothing if it never began, or is deleted already."""
        deleted, caller = NewEvent(ConversationDeleted()), self.store.caller(user=user)
        with suppress(WrongExpectedVersion, ConversationIsDeleted):
            await append_persistently(self.store, caller, self.conversation_id(given_id), [deleted], EXISTS)

    async def events(
        self, given_id: str, user: str | None, wanted: int | None = None
    ) -> AsyncGenerator[StoredEvent, None]:
        """Yield the events of a conversation down to its last deletion, the latest first.

        Args:
            wanted: how many the caller will look at, as far as it knows; None for all.
        """
        log = self.store.log(self.store.caller(user=user))
        limit = _PAGE if wanted is None else min(wanted + _MORE_EVENTS, _PAGE)
        parameters = {"tenant": self.store.tenant, "conversation_id": self.conversation_id(given_id)}
        last = HIGHEST_VERSION
        while last:
            page = {"last": Int4(last), "limit": Int4(limit)}
            rows = await log.fetch(_LATEST_EVENTS, parameters | page, cursor=RawRows)
            for version, event_type, content, order in rows:
                event = StoredEvent(version, event_type, _content(content, order))
                if event_type in _WITH_PARTS and isinstance(parts := event.content.get("parts"), list):
                    await load_files(self.store, [parts])
                yield event
                if event_type == "conversation.deleted":
                    return
            if len(rows) < limit:
                return
            last, limit = rows[-1][0] - 1, min(2 * limit, _PAGE)

    async def task_of(self, given_id: str, call_id: str, user: str | None) -> UUID:
        """Return the id of the latest task of a tool call; a new id if the conversation has none."""
        async with aclosing(self.events(given_id, user, _MORE_EVENTS)) as events:
            async for event in events:
                if event.event_type == "task.created" and event.content.get("given_id") == call_id:
                    return UUID(event.content["task_id"])
        return uuid4()


class StoredEvent(NamedTuple):
    """An event as the adapters read it: its content is plain JSON, with the members in their order."""

    version: int
    event_type: str
    content: Any


def _content(content: bytes, order: bytes | None) -> Any:
    value = from_json(content[1:])  # after the number of the binary format
    if order is not None:
        orders = from_json(order[1:])
        if isinstance(orders, dict):
            restore_members(value, orders)
        else:
            restore(value, orders)
    return value


@lru_cache(maxsize=1024)
def _named(tenant: str, given_id: str) -> tuple[UUID, NewEvent]:
    """Return the conversation that has an id of the framework, and the event that begins it."""
    conversation_id = conversation_uuid(tenant, given_id)
    given = given_id if given_id != str(conversation_id) else None
    return conversation_id, NewEvent(ConversationCreated(given_id=given))


# Messages in a framework's own form

_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""The member that holds the text, by the type of a part."""
_FILE_MEMBERS = ("image_url", "file_data", "file_url", "uri")
_DATA_URL = re.compile(r"data:([^;,]*);base64,(.*)", re.DOTALL)


def message_of(form: Json, member: str, role: Role, prefix: str, **fields: Any) -> MessageAdded:
    """Return the event of a message in a framework's form.

    Args:
        member: the member of the form with its text or its list of parts.
        prefix: the member of ``extra`` that holds the rest of the form.
    """
    value = form.get(member)
    content, parts = value if isinstance(value, str) else None, None
    rest: Any = None if content is not None else value
    if isinstance(value, list) and value:
        parts, rest = map(list, zip(*map(_split, value), strict=True))
        if len(parts) == 1 and parts[0].keys() == {"kind", "text"}:
            content, parts = parts[0]["text"], None
    own = form | {member: rest} if member in form else form
    return MessageAdded(role=role, content=content, parts=parts, extra={prefix: own}, **fields)


def form_of(content: Json, member: str, prefix: str) -> Json:
    """Return the form of the message with this content, which :func:`message_of` has made."""
    form: Json = content["extra"][prefix]
    rest, text = form.get(member), content.get("content")
    if isinstance(rest, list) and rest:
        parts = content.get("parts") or [_text_part(cast(str, text))]
        form[member] = [_joined(*pair) for pair in zip(parts, rest, strict=True)]
    elif text is not None:
        form[member] = text
    return form


def parts_of(value: Any) -> tuple[list[Json], Any]:
    """Return a text or a list as the parts of A2A, and what is left of it; see :func:`value_of`."""
    if isinstance(value, list) and value:
        parts, rest = zip(*map(_split, value), strict=True)
        return list(parts), list(rest)
    return ([_text_part(value)], None) if isinstance(value, str) else ([], value)


def value_of(parts: list[Json], rest: Any) -> Any:
    """Return the value of which :func:`parts_of` has made parts."""
    if isinstance(rest, list) and rest:
        return [_joined(*pair) for pair in zip(parts, rest, strict=True)]
    return parts[0]["text"] if parts else rest


def plain_text(content: Json) -> str:
    """Return the text of the message with this content, whatever has written it."""
    return content.get("content") or parts_text(content.get("parts") or (content.get("extra") or {}).get("content"))


def _split(part: Any) -> tuple[Json, Json | None]:
    """Return a part in A2A's form, and what is left of it; None if A2A's form holds all."""
    if isinstance(part, dict):
        text_member = _text_member(part)
        if text_member is not None and isinstance(part.get(text_member), str):
            return _text_part(part[text_member]), part | {text_member: None}
        members = [name for name in _FILE_MEMBERS if name in part]
        if len(members) == 1 and isinstance(part[members[0]], str):
            name = {"name": part["filename"]} if isinstance(part.get("filename"), str) else {}
            return {"kind": "file", "file": _file(members[0], part[members[0]]) | name}, part | {members[0]: None}
    return {"kind": "data", "data": part}, None


def _joined(part: Json, rest: Json | None) -> Any:
    if rest is None:
        return part["data"]
    if part["kind"] == "text":
        return rest | {cast(str, _text_member(rest)): part["text"]}
    member = next(name for name in _FILE_MEMBERS if name in rest)
    return rest | {member: _address(part["file"])}


def _text_part(text: str) -> Json:
    return {"kind": "text", "text": text}


def _text_member(part: Json) -> str | None:
    kind = part.get("type")
    return _TEXTS.get(kind) if isinstance(kind, str) else None


def _file(member: str, address: str) -> Json:
    """Return A2A's file of a URL, which may hold the data itself."""
    if (data := _DATA_URL.fullmatch(address)) is not None:
        return {"mimeType": data[1], "bytes": data[2]}
    return {"bytes" if member == "file_data" else "uri": address}


def _address(file: Json) -> str:
    if "mimeType" in file:
        return f"data:{file['mimeType']};base64,{file['bytes']}"
    return str(file.get("uri", file.get("bytes")))


# Values that PostgreSQL cannot store as they are, such as a text with a NUL character


def json_if_unstorable(value: Any) -> str | None:
    """Return a value as JSON in ASCII if it cannot be stored as it is; None if it can.

    Raises:
        InvalidEvent: it has no JSON form.
    """
    try:
        to_json(value, "item")
    except InvalidEvent as error:
        try:
            return json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            raise error from None
    return None


def storable(value: Any) -> Any:
    """Return a JSON value without what PostgreSQL cannot store, to be shown beside the value as it is."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {storable(name): storable(member) for name, member in value.items()}
    return [storable(member) for member in value] if isinstance(value, list | tuple) else value
