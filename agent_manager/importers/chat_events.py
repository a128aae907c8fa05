"""The events of conversations that were read from files.

The actor ``importer`` creates a conversation; messages, the calls that they make and the results that they bring have
the message's role as their actor.

The ids of events and tasks are derived from the ids in the file or, if there are none, from the place in the
conversation. The two kinds are derived under different names, so that no id in a file can imitate a place. A
conversation without an id gets one that is derived from its beginning, so that it is found again when it has grown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeAlias
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.importers.chats import CallKey, Chat, ChatMessage, MalformedChat, ToolCall, ToolResult
from agent_manager.importers.json_values import JsonValue
from agent_manager.importers.source import IMPORTER, MAX_NAME_CHARACTERS, read_time
from eventstore import (
    ConversationCreated,
    EventData,
    IdAssigner,
    MessageAdded,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
    conversation_uuid,
    message_from_sent,
)
from eventstore.append import MAX_EVENTS
from eventstore.errors import InputError
from eventstore.events import PLAIN
from eventstore.ids import assigned_uuid, derived_uuid
from eventstore.json_text import to_json

PART_BYTES = 32 * 1024 * 1024
"""A larger conversation takes several appends: the server holds each one in memory, more than once."""
_GROWTH = 8
"""An upper bound of the ratio between the bytes of an event and of the text in the line that it is derived from: the
text is escaped once more at most."""
TIME_MEMBERS = ("timestamp", "created_at", "created", "create_time", "time")
"""The members that hold the time of a message or conversation; the first one that can be read counts."""
_RESULT_ARTIFACT_ID = "result"

OpenCalls: TypeAlias = dict[CallKey, list[tuple[UUID, ToolCall]]]
"""The calls that await their results, with their tasks."""


@dataclass(slots=True)
class Conversation:
    """The events of a conversation.

    Attributes:
        given_id: its id in the file, or the UUID that it was given.
        places: for each event, the place in the value that it comes from.
        parts: the events as they are appended, usually in one part.
        unread_times: what is wrong with times that could not be read.
        is_export, left_out, follows: as in :class:`~agent_manager.importers.chats.Chat`.
        other_messages: the ids of the messages of other branches.
        known_events: how many of the events are not appended because the log holds them.
        or_else: gives the conversation another id, if it has none of its own; None if it has.
    """

    id: UUID
    given_id: str = ""
    events: list[NewEvent] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    messages: int = 0
    tasks: int = 0
    unread_times: list[str] = field(default_factory=list)
    parts: list[list[NewEvent]] = field(default_factory=list)
    is_export: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    follows: bool = False
    other_messages: set[UUID] = field(default_factory=set)
    known_events: int = 0
    value: JsonValue = field(default_factory=lambda: JsonValue("", 1, "", 0, None))
    or_else: Callable[[], Conversation] | None = None


def conversation_of_chat(
    chat: Chat,
    tenant: str,
    zone: tzinfo = UTC,
    conversation_id: UUID | None = None,
    open_calls: dict[UUID, OpenCalls] | None = None,
) -> Conversation:
    """Return the events of a conversation.

    Args:
        conversation_id: its id; derived from the id in the file, or else from its beginning, if it is None.
        open_calls: the calls of conversations that later values may continue.

    Raises:
        MalformedChat, InvalidEvent, InvalidId: it cannot be stored; the error names the place.
    """
    if conversation_id is None:
        given_id = chat.given_id
        conversation_id = beginning_id(chat, tenant) if given_id is None else conversation_uuid(tenant, given_id)
    converter = _Converter(chat, tenant, conversation_id, zone, open_calls or {})
    try:
        converter.create()
        for index, message in enumerate(chat.messages):
            converter.add_message(index, message)
    except RecursionError:
        raise MalformedChat("is nested too deeply: flatten the values in it") from None
    if chat.may_be_followed and open_calls is not None:
        open_calls[conversation_id] = {key: calls for key, calls in converter.open_calls.items() if calls}
    return converter.conversation


def beginning_id(chat: Chat, tenant: str) -> UUID:
    """Return an id for a conversation without one, derived from its messages up to the first answer."""
    roles = [message.sent.get("role") for message in chat.messages]
    end = next((index for index, role in enumerate(roles) if role in ("assistant", "agent")), len(roles))
    return _content_id(chat.messages[: end + 1], tenant, None if chat.messages else chat.metadata)


def whole_id(chat: Chat, tenant: str) -> UUID:
    """Return an id for a conversation without one, derived from all of it."""
    return _content_id(chat.messages, tenant, chat.metadata)


def _content_id(messages: Sequence[ChatMessage], tenant: str, metadata: Json | None) -> UUID:
    content = json.dumps([metadata, *(message.sent for message in messages)], sort_keys=True)
    return derived_uuid("import", tenant, "content", content)


def find_time(sent: Mapping[str, Any], zone: tzinfo = UTC) -> datetime | None:
    """Return the time of a message or conversation; None if it has none that can be read."""
    times = (read_time(sent[name], zone) for name in TIME_MEMBERS if name in sent)
    return next((time for time in times if time is not None), None)


class _Converter:
    """Collects the events of one conversation."""

    def __init__(
        self, chat: Chat, tenant: str, conversation_id: UUID, zone: tzinfo, open_calls: dict[UUID, OpenCalls]
    ) -> None:
        given_id = str(conversation_id) if chat.given_id is None else chat.given_id
        self.conversation = Conversation(
            conversation_id,
            given_id,
            is_export=chat.is_export,
            left_out=chat.left_out,
            follows=chat.follows is not None,
        )
        self.conversation.other_messages = {
            assigned_uuid(tenant, conversation_id, "message", message) for message in chat.other_messages
        }
        self.open_calls = {key: list(calls) for key, calls in open_calls.get(conversation_id, {}).items()}
        self._chat, self._zone = chat, zone
        self._time: datetime | None = None  # of the message before
        self._scope = (tenant, str(conversation_id))
        self._message_ids = IdAssigner(tenant, conversation_id, "message")
        self._task_ids = IdAssigner(tenant, conversation_id, "task")

    def create(self) -> None:
        chat, conversation = self._chat, self.conversation
        title, metadata = chat.title, chat.metadata
        name = title[:MAX_NAME_CHARACTERS] if isinstance(title, str) else ""
        if title is not None and title != name:
            metadata = metadata | {"title": title}
        created = ConversationCreated(
            name=name,
            given_id=conversation.given_id if conversation.given_id != str(conversation.id) else None,
            metadata=metadata or None,
        )
        times = (
            find_time(holder, self._zone) for holder in (chat.time_members, *(each.sent for each in chat.messages))
        )
        time = next(filter(None, times), None)
        self._add(created, self._derived_id("conversation"), IMPORTER, time, "conversation")
        self._note_unread_time("conversation", chat.time_members, time)
        self._time = time if chat.is_export else None

    def add_message(self, index: int, read: ChatMessage) -> None:
        sent, place = read.sent, read.place
        time = find_time(sent, self._zone)
        self._note_unread_time(place, sent, time)
        if self._chat.is_export:
            self._time = time = time or self._time
        given_id = sent.get("id")
        try:
            if isinstance(given_id, str) and given_id:
                message_id = self._message_ids.assign(given_id)
            else:
                given_id, message_id = None, self._derived_id("message", index)
            if given_id == str(message_id):
                given_id = None
            message = message_from_sent(sent, given_id=given_id)
        except InputError as error:
            raise MalformedChat(f"{place}.{error}") from None
        if read.role is not None:
            extra = (message.extra or {}) | {"role": sent["role"]}
            message = message.model_copy(update={"role": read.role, "extra": extra})
        actor = str(message.role)
        self._add(message, message_id, actor, time, place)
        self.conversation.messages += 1
        for call in read.calls:
            self._create_task(index, call, message_id, actor, time, f"{place}.{call.place}")
        for result in read.results:
            self._complete_task(result, actor, time, place)

    def _create_task(
        self, index: int, call: ToolCall, message_id: UUID, actor: str, time: datetime | None, place: str
    ) -> None:
        if call.given_id is None:
            task_id = self._derived_id("task", index, call.place)
        else:
            task_id = self._task_ids.assign(call.given_id)
        if call.key is not None:
            self.open_calls.setdefault(call.key, []).append((task_id, call))
        created = TaskCreated(
            task_id=task_id,
            description=call.description,
            status=TaskStatus.IN_PROGRESS,
            given_id=call.given_id if call.given_id != str(task_id) else None,
            metadata={"message_id": str(message_id), "tool": call.name},
        )
        self._add(created, self._derived_id("created", str(task_id)), actor, time, place)
        self.conversation.tasks += 1

    def _complete_task(self, result: ToolResult, actor: str, time: datetime | None, place: str) -> None:
        """Complete the latest open call that this is the result of."""
        if not self.open_calls.get(result.key):
            return
        task_id, call = self.open_calls[result.key].pop()
        artifact = TaskArtifactAdded(
            task_id=task_id, artifact_id=_RESULT_ARTIFACT_ID, parts=result.parts, name=result.name or call.name
        )
        status = TaskStatus.FAILED if result.is_failed else TaskStatus.COMPLETED
        completed = TaskStatusChanged(task_id=task_id, status=status)
        self._add(artifact, self._derived_id("result", str(task_id)), actor, time, place)
        self._add(completed, self._derived_id("completed", str(task_id)), actor, time, place)

    def _note_unread_time(self, place: str, sent: Mapping[str, Any], time: datetime | None) -> None:
        if time is None:
            used = "import" if self._time is None else "message before"
            for name in TIME_MEMBERS:
                if sent.get(name) not in (None, ""):
                    problem = f"{place}.{name}: {sent[name]!r:.60} is not a time; the time of the {used} is used"
                    self.conversation.unread_times.append(problem)
                    break

    def _derived_id(self, *names: str | int) -> UUID:
        return derived_uuid("import", *self._scope, *names)

    def _add(self, data: EventData, event_id: UUID, actor: str, time: datetime | None, place: str) -> None:
        metadata = PLAIN if time is None else Metadata(occurred_at=time)
        self.conversation.events.append(NewEvent(data, event_id, actor, metadata))
        self.conversation.places.append(place)


def split_events(events: list[NewEvent], size: int | None = None) -> Iterator[list[NewEvent]]:
    """Yield the events of a conversation in as few appends as possible; ``size`` is about their bytes, if known."""
    if size is not None and len(events) <= MAX_EVENTS and size <= PART_BYTES:
        yield events
        return
    part: list[NewEvent] = []
    part_bytes = 0
    for event in events:
        event_bytes = len(json.dumps(event.data.to_content()))
        if part and (len(part) == MAX_EVENTS or part_bytes + event_bytes > PART_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(event)
        part_bytes += event_bytes
    if part:
        yield part


def shortened(events: list[NewEvent], limit: int, size: int) -> list[NewEvent]:
    """Return the events, those of tasks cut to the size limit: the message that they come from holds everything.

    Args:
        size: the bytes of the text that they come from.
    """
    if size * _GROWTH <= limit:
        return events
    message_id, fitting = None, []
    for event in events:
        data = event.data
        if isinstance(data, MessageAdded):
            message_id = event.id
        elif len(to_json(data.to_content(), "content")) > limit:
            if isinstance(data, TaskCreated):
                data = data.model_copy(update={"description": data.description[: limit // _GROWTH] + "…"})
            elif isinstance(data, TaskArtifactAdded):
                reference = {"kind": "data", "data": {"message_id": str(message_id)}}
                data = data.model_copy(update={"parts": [reference]})
        fitting.append(replace(event, data=data))
    return fitting
