"""pydantic-ai's conversations in the event store: records, entries, revisions, and branches that share entries.

Tested with pydantic-ai 2.68. Each entry of a conversation is a message of it, which names the entry before it; a
conversation that was forked from another one names entries there. A message's texts and files are its parts; what else
pydantic-ai knows of it is in ``extra.pydantic_ai``, with references to these parts. Large files are stored beside the
log. A call of a tool also begins a task, which the tool's result completes.

The record of a conversation is an event at the end of each save. A save is one append, which expects the version of the
conversation that has the expected revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from cachetools import LRUCache
from psycopg.types.numeric import Int8
from pydantic import TypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    ModelMessage,
    ModelMessagesTypeAdapter,
)
from pydantic_core import to_json

from agent_manager.a2a import Json
from agent_manager.adapters.blobs import files_in, load_files, referring, store_files
from agent_manager.adapters.store_access import StoreAccess, finished_in_store_loop, in_store_loop, restart
from agent_manager.agents.recorder import DEFAULT_ACTOR
from agent_manager.conversation_fold import ConversationFold
from eventstore import (
    NO_STREAM,
    ApplicationEvent,
    ConversationCreated,
    ConversationDeleted,
    Event,
    EventData,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
    Role,
    SyncEventStore,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
    conversation_uuid,
)
from eventstore.database.pools import ScopedPool
from eventstore.database.queries import query, query_without
from eventstore.errors import Forbidden, WrongExpectedVersion, printable
from eventstore.ids import derived_uuid, is_canonical_uuid
from eventstore.read import RawRows, end_of_log
from projections.read_your_writes import fetch_at_least

RECORD = "pydantic_ai.record"
"""The type of the event that holds the record of a conversation."""

_PACKAGE, _NAME = "agent_manager.adapters", "pydantic_ai"
_RECORD: TypeAdapter[ConversationRecord] = TypeAdapter(ConversationRecord)
_WHOLE_HISTORY = 2**31 - 1
_RECORDS = 1000
"""Records in one statement."""
_KEPT_PLACES = 100_000
"""Entries whose conversation is kept: pydantic-ai reads a history by the id of its last entry alone."""
_WAIT_SECONDS = 10.0
"""Seconds that a read waits for the read tables."""


class EventStoreConversationStore(ConversationStore):
    """Conversations of pydantic-ai in an event store.

    Args:
        store: an open store; the caller closes it. Any thread and any event loop may use the conversations.
        user: reads and writes only what this user may; None stands for the whole tenant.
    """

    def __init__(self, store: EventStore | SyncEventStore, user: str | None = None) -> None:
        self._access = StoreAccess(store)
        self._store = self._access.store
        self._caller = self._store.caller(user=user)
        self._places: LRUCache[str, UUID] = LRUCache(_KEPT_PLACES)

    @in_store_loop
    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return the record of a conversation; None if there is none, or it is deleted."""
        _, record, _ = await self._state(conversation_id)
        return record

    @in_store_loop
    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """Return the records, those that were saved last first.

        It contains everything that was saved before, so it waits for the worker of the read tables.

        Raises:
            NotCaughtUp: the read tables are behind, or there is no worker.
        """
        conditions = {"scope": scope, "limit": None if limit is None else Int8(limit)}
        given = {name: value for name, value in conditions.items() if value is not None}
        text = query_without(_PACKAGE, "pydantic_ai_conversations", frozenset(conditions.keys() - given.keys()))
        ids = [row[0] for row in await self._rows_of_tables(text, given, "conversations")]
        records: list[ConversationRecord] = []
        for start in range(0, len(ids), _RECORDS):
            records += [record for _, record, _ in await self._states(ids[start : start + _RECORDS]) if record]
        return sorted(records, key=lambda record: record.updated_at, reverse=True)

    @finished_in_store_loop
    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and the entries that its history adds, in one append.

        Raises:
            ConversationConflict: the stored record has another revision, or the history ends with an unknown entry.
            NotCaughtUp: the last entry was stored elsewhere, and the read tables are behind.
        """
        name = record.conversation_id
        conversation_id = conversation_uuid(self._store.tenant, name)
        new_ids = {entry.id: conversation_id for entry in new_entries}
        known = [record.head_id, new_entries[0].parent_id if new_entries else None]
        places = {each: await self._place(each) for each in known if each is not None and each not in new_ids} | new_ids
        if record.head_id is not None and places[record.head_id] is None:
            raise ConversationConflict(name)
        entries = await self._entries(new_entries, conversation_id, places)
        while True:
            version, stored, is_deleted = await self._state(name)
            if (None if stored is None else stored.revision) != expected_revision:
                raise ConversationConflict(name)
            events = [
                *await self._beginning(record, conversation_id, version, stored, is_deleted=is_deleted),
                *entries,
                self._record_event(record, conversation_id, places),
            ]
            if await self._append(conversation_id, events, version, name):
                self._places.update(new_ids)
                return

    @finished_in_store_loop
    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation. Its entries remain in the log, for conversations that were forked from it.

        Raises:
            ConversationConflict: the stored record has another revision.
        """
        uuid = conversation_uuid(self._store.tenant, conversation_id)
        while True:
            version, stored, _ = await self._state(conversation_id)
            if stored is None or stored.revision != expected_revision:
                raise ConversationConflict(conversation_id)
            if await self._append(uuid, [NewEvent(ConversationDeleted(), actor=self._user)], version, conversation_id):
                return

    @in_store_loop
    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return an entry.

        Raises:
            KeyError: there is no such entry.
        """
        [entry] = await self.read_history(entry_id, limit=1)
        return entry

    @in_store_loop
    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """Return the entries up to one, oldest first, or only the last of them.

        Raises:
            KeyError: there is no such entry.
        """
        if head_id is None or limit == 0:
            return []
        place = await self._place(head_id)
        given = {
            "tenant": self._store.tenant,
            "conversation_id": place,
            "id": _event_id(head_id),
            "limit": _WHOLE_HISTORY if limit is None else limit,
        }
        rows = [] if place is None else await self._log.fetch(_HISTORY, given, cursor=RawRows)
        if not rows:
            raise KeyError(f"no entry has the id {printable(head_id)!r}")
        events = [event for event in map(Event.from_row, rows) if not event.is_erased]
        for event in events:
            await load_files(self._store, [event.content["parts"]], event.conversation_id)
        entries = []
        for event, message in zip(events, _messages(events), strict=True):
            note = event.raw_metadata[_NAME]
            entry = ConversationEntry(id=note.get("id", str(event.id)), parent_id=note.get("parent"), message=message)
            self._places[entry.id] = event.conversation_id
            entries.append(entry)
        return entries

    @property
    def _log(self) -> ScopedPool:
        return self._store.log(self._caller)

    @property
    def _user(self) -> str:
        return self._caller.user or "user"

    async def _state(self, conversation_id: str) -> tuple[int, ConversationRecord | None, bool]:
        [state] = await self._states([conversation_uuid(self._store.tenant, conversation_id)])
        return state

    async def _states(self, ids: Sequence[UUID]) -> list[tuple[int, ConversationRecord | None, bool]]:
        """Return of each conversation its version, its record unless it is deleted, and whether it is deleted."""
        given = {"tenant": self._store.tenant, "conversations": list(ids)}
        states: list[tuple[int, ConversationRecord | None, bool]] = []
        for _, version, is_deleted, *row in await self._log.fetch(_RECORDS_OF, given, cursor=RawRows):
            record = None
            if row[0] is not None and not is_deleted:
                event = Event.from_row(row)
                content = dict(event.content)
                self._places.update({each: UUID(place) for each, place in content.pop("places", {}).items()})
                record = _RECORD.validate_json(to_json(content))
                if record.head_id is not None:
                    self._places.setdefault(record.head_id, event.conversation_id)
                for tip in record.branches:
                    self._places.setdefault(tip, event.conversation_id)
            states.append((version, record, bool(is_deleted)))
        return states

    async def _append(self, conversation_id: UUID, events: Sequence[NewEvent], version: int, name: str) -> bool:
        """Append events to a version of a conversation; return False if it has another one by now."""
        try:
            await self._access.append(self._caller, conversation_id, events, version or NO_STREAM)
        except Forbidden:
            if version:
                raise
            raise ConversationConflict(name) from None  # it exists, but this user does not see it
        except WrongExpectedVersion:
            return False
        return True

    async def _beginning(
        self, record: ConversationRecord, conversation_id: UUID, version: int, stored: ConversationRecord | None,
        *, is_deleted: bool,
    ) -> list[NewEvent]:  # fmt: skip
        """Return the events that make a conversation one with this record: none if it has one already."""
        if stored is not None and stored.scope == record.scope:
            return []
        fold = ConversationFold(conversation_id)
        if version:  # another framework's, or it was deleted
            async for event in self._store.read(conversation_id, types=_BEGINNINGS, user=self._caller.user):
                fold.apply(event)
        given_id = None if is_canonical_uuid(record.conversation_id) else record.conversation_id
        metadata = {**(fold.metadata or {}), _NAME: {} if record.scope is None else {"scope": record.scope}}
        begin = ConversationCreated(name=fold.name, given_id=given_id, metadata=metadata)
        return [*(restart(self._user) if is_deleted else ()), NewEvent(begin, actor=self._user)]

    async def _entries(
        self, entries: Sequence[ConversationEntry], conversation_id: UUID, places: dict[str, UUID | None]
    ) -> list[NewEvent]:
        """Return the events of entries: their messages, without large files, and what they mean for tasks."""
        events: list[NewEvent] = []
        calls = await self._earlier_calls(entries)
        for entry in entries:
            events += await self._entry_events(entry, conversation_id, places, calls)
        return events

    async def _earlier_calls(self, entries: Sequence[ConversationEntry]) -> dict[str, UUID]:
        """Return the tasks of calls of tools in the history before entries, if they have results of such calls."""
        calls: dict[str, UUID] = {}
        missing: set[str] = set()
        for entry in entries:
            missing |= _answered_calls(entry.message) - calls.keys()
            calls |= _calls(entry)
        calls = {}
        if missing and entries[0].parent_id is not None:
            for entry in await self.read_history(entries[0].parent_id):
                calls |= _calls(entry)
        return calls

    async def _entry_events(
        self,
        entry: ConversationEntry,
        conversation_id: UUID,
        places: dict[str, UUID | None],
        calls: dict[str, UUID],
    ) -> list[NewEvent]:
        event_id = _event_id(entry.id)
        note: Json = {} if str(event_id) == entry.id else {"id": entry.id}
        if entry.parent_id is not None:
            note["parent"] = entry.parent_id
            if (parent_event := str(_event_id(entry.parent_id))) != entry.parent_id:
                note["parent_event"] = parent_event
            if (place := places.get(entry.parent_id)) not in (None, conversation_id):
                note["parent_conversation"] = str(place)
        data = _message_event(entry.message)
        parts = await store_files(self._store, data.parts or [], conversation_id)
        data = data.model_copy(update={"parts": parts})
        time: Any = getattr(entry.message, "timestamp", None)
        occurred_at = time if isinstance(time, datetime) and time.tzinfo is not None else None
        actor = {Role.USER: self._user, Role.SYSTEM: self._user, Role.TOOL: "tool"}.get(Role(data.role), DEFAULT_ACTOR)
        metadata = referring(Metadata(occurred_at=occurred_at, **{_NAME: note}), files_in(parts))
        message = NewEvent(data, event_id, actor, metadata)
        cause = Metadata(occurred_at=occurred_at, causation_id=str(event_id))
        tasks = _task_events(entry, calls)
        return [message, *(NewEvent(task, actor=DEFAULT_ACTOR, metadata=cause) for task in tasks)]

    def _record_event(
        self, record: ConversationRecord, conversation_id: UUID, places: dict[str, UUID | None]
    ) -> NewEvent:
        content = _compact(_RECORD.dump_python(record, mode="json"))
        known = {
            each: places.get(each) or self._places.get(each) for each in (record.head_id, *record.branches) if each
        }
        if foreign := {each: str(place) for each, place in known.items() if place not in (None, conversation_id)}:
            content["places"] = foreign
        time = record.updated_at if record.updated_at.tzinfo is not None else None
        return NewEvent(ApplicationEvent(RECORD, content), actor=self._user, metadata=Metadata(occurred_at=time))

    async def _place(self, entry_id: str) -> UUID | None:
        """Return the conversation in which an entry is stored; None if there is no such entry."""
        if entry_id not in self._places:
            given = {"id": _event_id(entry_id)}
            for (place,) in await self._rows_of_tables(_CONVERSATION_OF, given, "messages"):
                self._places[entry_id] = place
        return self._places.get(entry_id)

    async def _rows_of_tables(self, text: str, given: Json, projection: str) -> list[Any]:
        at_least = await end_of_log(self._log)
        given = given | {"tenant": self._store.tenant}
        rows, _ = await fetch_at_least(self._store, self._caller, text, given, [projection], at_least, _WAIT_SECONDS)
        return rows


_HISTORY = query(_PACKAGE, "pydantic_ai_history")
_RECORDS_OF = query(_PACKAGE, "pydantic_ai_records")
_CONVERSATION_OF = query(_PACKAGE, "pydantic_ai_conversation_of")
_BEGINNINGS = ("conversation.created", "conversation.forked", "conversation.renamed")


def _event_id(entry_id: str) -> UUID:
    return UUID(entry_id) if is_canonical_uuid(entry_id) else derived_uuid("pydantic_ai.entry", entry_id)


# A message of pydantic-ai as one of the vocabulary: its texts and files become parts, which its own form refers to

_PART = "eventstore:part"
"""The member of an object that stands for a value in the parts of the message."""
_FILES = "eventstore:files"
"""The member of such an object that says that the value contains others: files in the result of a tool."""
_TO_PLAIN, _TO_URL_SAFE, _URL_SAFE = str.maketrans("-_", "+/"), str.maketrans("+/", "-_"), frozenset("+/")
"""pydantic's Base64 is that for URLs; that of a part is the plain one."""
_REQUIRED = frozenset(("head_id", "content", "args"))
"""Members without a default, which may be null."""
_SPEECH = frozenset(("transcript", "audio"))
"""Members of a part of speech that hold a text and a file."""
_FILE_KINDS = frozenset(("binary", "image-url", "audio-url", "video-url", "document-url"))


def _message_event(message: ModelMessage) -> MessageAdded:
    [own] = ModelMessagesTypeAdapter.dump_python([message], mode="json")
    parts: list[Json] = []
    own["parts"] = [_compact(part) for part in own["parts"]]
    for part in own["parts"]:
        _move_part(part, parts)
    kinds = {part.get("part_kind") for part in own["parts"]}
    if own["kind"] == "response":
        role = Role.ASSISTANT
    elif not kinds or not kinds.isdisjoint(("user-prompt", "speech")):
        role = Role.USER
    else:
        role = Role.SYSTEM if kinds <= {"system-prompt"} else Role.TOOL
    return MessageAdded(role=role, parts=parts, extra={_NAME: _compact(own)})


def _move_part(part: Json, parts: list[Json]) -> None:
    """Move the texts, files and values of a part of pydantic-ai's form to the parts of the message."""
    kind = part.get("part_kind", "")
    if "args" in part:
        part["args"] = _moved(parts, {"kind": "data", "data": {"tool": part.get("tool_name"), "args": part["args"]}})
    content = part.get("content")
    if isinstance(content, list) and kind == "user-prompt":
        part["content"] = [_moved_content(item, parts, kind) for item in content]
    elif content is not None:
        part["content"] = _moved_content(content, parts, kind)
    for name in _SPEECH & part.keys():
        part[name] = _moved_content(part[name], parts, "text")


def _moved_content(content: Any, parts: list[Json], kind: str) -> Any:
    if isinstance(content, str):
        metadata = {} if kind in ("text", "user-prompt") else {"metadata": {_NAME: kind}}
        return _moved(parts, {"kind": "text", "text": content, **metadata})
    if (file := _moved_file(content, parts)) is not None:
        return file
    if kind != "user-prompt" and not _has_reference(content):
        number = len(parts)
        content = _with_moved_files(content, parts)
        if len(parts) > number:
            return _moved(parts, {"kind": "data", "data": {"content": content}}) | {_FILES: True}
    return _moved(parts, {"kind": "data", "data": {"content": content}})


def _moved_file(content: Any, parts: list[Json]) -> Json | None:
    """Return a file with a reference to its part; None if it is not a file."""
    if not isinstance(content, dict) or content.get("kind") not in _FILE_KINDS:
        return None
    name, member = ("data", "bytes") if content["kind"] == "binary" else ("url", "uri")
    if not isinstance(value := content.get(name), str) or (name == "data" and not _URL_SAFE.isdisjoint(value)):
        return None
    value = value.translate(_TO_PLAIN) if name == "data" else value
    media_type = {"mimeType": content["media_type"]} if isinstance(content.get("media_type"), str) else {}
    return content | {name: _moved(parts, {"kind": "file", "file": {member: value, **media_type}})}


def _with_moved_files(content: Any, parts: list[Json]) -> Any:
    """Return a value in which files are references to their parts."""
    if (file := _moved_file(content, parts)) is not None:
        return file
    if isinstance(content, dict):
        return {name: _with_moved_files(value, parts) for name, value in content.items()}
    return [_with_moved_files(item, parts) for item in content] if isinstance(content, list) else content


def _has_reference(content: Any) -> bool:
    """Return whether a value contains what would be taken for a reference to a part."""
    if isinstance(content, dict):
        return _PART in content or any(map(_has_reference, content.values()))
    return isinstance(content, list) and any(map(_has_reference, content))


def _moved(parts: list[Json], part: Json) -> Json:
    parts.append(part)
    return {_PART: len(parts) - 1}


def _messages(events: Iterable[Event]) -> list[ModelMessage]:
    """Return the messages of entries, as pydantic-ai's objects."""
    return ModelMessagesTypeAdapter.validate_json(to_json([_own_form(event.content) for event in events]))


def _own_form(content: Json) -> Json:
    own: Json = content["extra"][_NAME]
    parts: list[Json] = content["parts"]

    def value(item: Any, *path: str) -> Any:
        if not isinstance(item, dict) or item.keys() != {_PART}:
            return item
        found: Any = parts[item[_PART]]
        for name in path:
            found = found[name]
        return found.translate(_TO_URL_SAFE) if path[-1] == "bytes" else found

    def with_file(item: Json) -> Json:
        for name, member in (("data", "bytes"), ("url", "uri")):
            if name in item:
                item = item | {name: value(item[name], "file", member)}
        return item

    def with_files(item: Any) -> Any:
        if isinstance(item, dict):
            item = with_file(item) if item.get("kind") in _FILE_KINDS else item
            return {name: with_files(each) for name, each in item.items()}
        return [with_files(each) for each in item] if isinstance(item, list) else item

    def restored(item: Any) -> Any:
        if isinstance(item, dict) and item.get("kind") in _FILE_KINDS:
            return with_file(item)
        if isinstance(item, dict) and _PART in item:
            part = parts[item[_PART]]
            content = part["text"] if part["kind"] == "text" else part["data"]["content"]
            return with_files(content) if _FILES in item else content
        return item

    return own | {"parts": [_restored_part(part, value, restored) for part in own["parts"]]}


def _restored_part(part: Json, value: Callable[..., Any], restored: Callable[[Any], Any]) -> Json:
    part = dict(part)
    if "args" in part:
        part["args"] = value(part["args"], "data", "args")
    if "content" in part:
        content = part["content"]
        part["content"] = [restored(item) for item in content] if isinstance(content, list) else restored(content)
    return part | {name: restored(part[name]) for name in _SPEECH & part.keys()}


def _compact(own: Json) -> Json:
    """Return a form without the members that pydantic-ai adds by itself: those that are null, and counts of zero."""
    usage = {name: value for name, value in own.get("usage", {}).items() if value}
    compact = {name: value for name, value in own.items() if value is not None or name in _REQUIRED}
    return compact | ({"usage": usage} if "usage" in own else {})


# Calls of tools as tasks

_RESULTS = ("tool-return", "builtin-tool-return", "retry-prompt")
"""The kinds of parts that answer calls of tools."""


def _calls(entry: ConversationEntry) -> dict[str, UUID]:
    """Return the tasks of the calls of tools in an entry, by the ids of the calls, which may repeat later."""
    return {
        part.tool_call_id: _task_id(entry, number)
        for number, part in enumerate(entry.message.parts)
        if isinstance(part, BaseToolCallPart)
    }


def _task_id(entry: ConversationEntry, number: int) -> UUID:
    return derived_uuid("pydantic_ai.tool", str(_event_id(entry.id)), str(number))


def _answered_calls(message: ModelMessage) -> set[str]:
    """Return the ids of the calls whose results are in a message."""
    parts: Sequence[Any] = message.parts
    return {part.tool_call_id for part in parts if part.part_kind in _RESULTS and part.tool_name is not None}


def _task_events(entry: ConversationEntry, calls: dict[str, UUID]) -> list[EventData]:
    """Return the events of the tasks of the calls and results in an entry. The message itself is not repeated in them.

    Args:
        calls: the tasks of earlier calls, by the ids of the calls; those of the entry are added.
    """
    events: list[EventData] = []
    made_of = {"message_id": str(_event_id(entry.id))}
    parts: Sequence[Any] = entry.message.parts
    for number, part in enumerate(parts):
        task_id: UUID | None
        if isinstance(part, BaseToolCallPart):
            task_id = calls[part.tool_call_id] = _task_id(entry, number)
            created = TaskCreated(
                task_id=task_id, given_id=part.tool_call_id, description=part.tool_name, status=TaskStatus.IN_PROGRESS,
                metadata=made_of,
            )  # fmt: skip
            events.append(created)
        elif part.part_kind in _RESULTS and (task_id := calls.get(part.tool_call_id)) is not None:
            is_done = isinstance(part, BaseToolReturnPart) and part.outcome == "success"
            result = [{"kind": "data", "data": made_of}]
            events.append(TaskArtifactAdded(task_id=task_id, artifact_id="result", parts=result))
            status = TaskStatus.COMPLETED if is_done else TaskStatus.FAILED
            events.append(TaskStatusChanged(task_id=task_id, status=status))
    return events
