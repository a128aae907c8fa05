"""One line of a chat log, and the events that it means.

Who acts (``actor``): ``importer`` creates the conversation; messages, the calls that they make and the results that
they bring are of the message's role.

The ids of events and tasks are made from the ids in the line or, where there are none, from the place in it. The
two kinds come from different names, so that no id in a line can imitate a place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any
from uuid import UUID

from agent_manager.importing.jsonline import MalformedLine, described, expected, id_text, parse_line
from agent_manager.importing.times import own_time
from agent_manager.importing.toolcalls import Key, ToolCall, answered_call, calls_of, result_parts
from eventstore import (
    ConversationCreated,
    EventData,
    IdAssigner,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
    conversation_uuid,
    message_from_sent,
)
from eventstore.errors import InputError
from eventstore.ids import derived_uuid

IMPORTER = "importer"
"""The actor that creates imported conversations."""

RESULT = "result"
"""The id of the artifact that holds what a tool gave back."""

_LONGEST_NAME = 255


@dataclass(slots=True)
class Conversation:
    """A conversation as events.

    Attributes:
        places: for each event, where in the line it comes from.
        messages, tasks: how many there are.
    """

    id: UUID
    events: list[NewEvent] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    messages: int = 0
    tasks: int = 0


def conversation_from_line(line: bytes, tenant: str, zone: tzinfo = UTC) -> Conversation:
    """Return the events of one line; ``zone`` is that of times without an offset.

    Raises:
        MalformedLine, InvalidEvent, InvalidId: it is not a conversation; says what stands where.
    """
    sent = parse_line(line)
    given_id = id_text(sent.get("id"))
    if given_id is None:
        raise MalformedLine(expected(sent, "id", "the conversation's id, a text"))
    messages = sent.get("messages")
    if not isinstance(messages, list):
        raise MalformedLine(expected(sent, "messages", "a list of messages"))
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise MalformedLine(f"messages[{index}]: is {described(message)}, expected an object")
    translation = _Translation(tenant, conversation_uuid(tenant, given_id), zone)
    translation.begin(sent, given_id, messages)
    for index, message in enumerate(messages):
        translation.add(index, message)
    return translation.conversation


class _Translation:
    def __init__(self, tenant: str, conversation_id: UUID, zone: tzinfo) -> None:
        self._zone = zone
        self.conversation = Conversation(conversation_id)
        self._scope = (tenant, str(conversation_id))
        self._message_ids = IdAssigner(tenant, conversation_id, "message")
        self._task_ids = IdAssigner(tenant, conversation_id, "task")
        self._open: dict[Key, list[tuple[UUID, ToolCall]]] = {}

    def begin(self, sent: dict[str, Any], given_id: str, messages: list[dict[str, Any]]) -> None:
        title = sent.get("title")
        further = {name: value for name, value in sent.items() if name not in ("id", "title", "messages")}
        name = title if isinstance(title, str) else ""
        if title is not None and title != name[:_LONGEST_NAME]:
            further["title"] = title
        times = (own_time(one, self._zone) for one in (sent, *messages))
        happened = next(filter(None, times), None)
        created = ConversationCreated(
            name=name[:_LONGEST_NAME],
            given_id=given_id if given_id != str(self.conversation.id) else None,
            metadata=further or None,
        )
        self._event(created, self._derived("conversation"), IMPORTER, happened, "conversation")

    def add(self, index: int, sent: dict[str, Any]) -> None:
        place, happened = f"messages[{index}]", own_time(sent, self._zone)
        given_id = sent.get("id")
        try:
            if isinstance(given_id, str) and given_id:
                message_id = self._message_ids.assign(given_id)
            else:
                given_id, message_id = None, self._derived("message", index)
            if given_id == str(message_id):
                given_id = None
            message = message_from_sent(sent, given_id=given_id)
            calls = calls_of(sent)
        except InputError as error:
            raise MalformedLine(f"{place}.{error}") from None
        actor = str(message.role)
        self._event(message, message_id, actor, happened, place)
        self.conversation.messages += 1
        self._close(sent, actor, happened, place)
        for call in calls:
            self._begin_task(index, call, message_id, actor, happened, f"{place}.{call.place}")

    def _begin_task(
        self, index: int, call: ToolCall, message_id: UUID, actor: str, happened: datetime | None, place: str
    ) -> None:
        if call.given_id is None:
            task_id = self._derived("task", index, call.place)
        else:
            task_id = self._task_ids.assign(call.given_id)
        if call.key is not None:
            self._open.setdefault(call.key, []).append((task_id, call))
        created = TaskCreated(
            task_id=task_id,
            description=call.description,
            status=TaskStatus.IN_PROGRESS,
            given_id=call.given_id if call.given_id != str(task_id) else None,
            metadata={"message_id": str(message_id), "tool": call.name},
        )
        self._event(created, self._derived("created", str(task_id)), actor, happened, place)
        self.conversation.tasks += 1

    def _close(self, sent: dict[str, Any], actor: str, happened: datetime | None, place: str) -> None:
        """Completes the latest open call that the message is the result of."""
        key = answered_call(sent)
        if key is None or not self._open.get(key):
            return
        task_id, call = self._open[key].pop()
        name = sent.get("name")
        result = TaskArtifactAdded(
            task_id=task_id,
            artifact_id=RESULT,
            parts=result_parts(sent.get("content")),
            name=name if isinstance(name, str) else call.name,
        )
        completed = TaskStatusChanged(task_id=task_id, status=TaskStatus.COMPLETED)
        self._event(result, self._derived("result", str(task_id)), actor, happened, place)
        self._event(completed, self._derived("completed", str(task_id)), actor, happened, place)

    def _derived(self, *names: str | int) -> UUID:
        return derived_uuid("import", *self._scope, *names)

    def _event(self, data: EventData, event_id: UUID, actor: str, happened: datetime | None, place: str) -> None:
        metadata = _UNKNOWN_TIME if happened is None else Metadata(occurred_at=happened)
        self.conversation.events.append(NewEvent(data, event_id, actor, metadata))
        self.conversation.places.append(place)


_UNKNOWN_TIME = Metadata()
