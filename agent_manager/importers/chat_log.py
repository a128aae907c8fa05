"""Chat logs: lines of JSON in the OpenAI chat format, and the events of the conversations in them.

The actor ``importer`` creates a conversation; messages, the calls that they make and the results that they bring have
the message's role as their actor.

The ids of events and tasks are derived from the ids in the line or, if there are none, from the place in it. The two
kinds are derived under different names, so that no id in a line can imitate a place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NoReturn, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from agent_manager.a2a import Json
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
"""The actor of what an import does by itself, such as creating a conversation."""

TIME_MEMBERS = ("timestamp", "created_at", "created", "create_time", "time")
"""The members that hold the time of a message or conversation; the first one that can be read counts."""

_RESULT_ARTIFACT_ID = "result"
_LONGEST_NAME = 255


class MalformedLine(InputError):
    """A line of a chat log that does not hold a conversation."""


@dataclass(slots=True)
class Conversation:
    """The events of a conversation.

    Attributes:
        places: for each event, the place in the line that it comes from.
        messages, tasks: their numbers.
    """

    id: UUID
    events: list[NewEvent] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    messages: int = 0
    tasks: int = 0


def conversation_from_line(line: bytes, tenant: str, zone: tzinfo = UTC) -> Conversation:
    """Return the events of one line; ``zone`` is the zone of times without an offset.

    Raises:
        MalformedLine, InvalidEvent, InvalidId: it is not a conversation; the error names the place.
    """
    sent = _parse(line)
    given_id = _id_text(sent.get("id"))
    if given_id is None:
        raise MalformedLine(_unexpected(sent, "id", "the conversation's id, a text"))
    messages = sent.get("messages")
    if not isinstance(messages, list):
        raise MalformedLine(_unexpected(sent, "messages", "a list of messages"))
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise MalformedLine(f"messages[{index}]: is {_kind(message)}, expected an object")
    converter = _Converter(tenant, conversation_uuid(tenant, given_id), zone)
    converter.create(sent, given_id, messages)
    for index, message in enumerate(messages):
        converter.add_message(index, message)
    return converter.conversation


class _Converter:
    """Collects the events of one conversation."""

    def __init__(self, tenant: str, conversation_id: UUID, zone: tzinfo) -> None:
        self.conversation = Conversation(conversation_id)
        self._zone = zone
        self._scope = (tenant, str(conversation_id))
        self._message_ids = IdAssigner(tenant, conversation_id, "message")
        self._task_ids = IdAssigner(tenant, conversation_id, "task")
        self._open_calls: dict[CallKey, list[tuple[UUID, ToolCall]]] = {}

    def create(self, sent: Json, given_id: str, messages: list[Json]) -> None:
        title = sent.get("title")
        metadata = {name: value for name, value in sent.items() if name not in ("id", "title", "messages")}
        name = title[:_LONGEST_NAME] if isinstance(title, str) else ""
        if title is not None and title != name:
            metadata["title"] = title
        times = (find_time(holder, self._zone) for holder in (sent, *messages))
        created = ConversationCreated(
            name=name,
            given_id=given_id if given_id != str(self.conversation.id) else None,
            metadata=metadata or None,
        )
        self._add(created, self._derived_id("conversation"), IMPORTER, next(filter(None, times), None), "conversation")

    def add_message(self, index: int, sent: Json) -> None:
        place, time = f"messages[{index}]", find_time(sent, self._zone)
        given_id = sent.get("id")
        try:
            if isinstance(given_id, str) and given_id:
                message_id = self._message_ids.assign(given_id)
            else:
                given_id, message_id = None, self._derived_id("message", index)
            if given_id == str(message_id):
                given_id = None
            message = message_from_sent(sent, given_id=given_id)
            calls = _tool_calls(sent)
        except InputError as error:
            raise MalformedLine(f"{place}.{error}") from None
        actor = str(message.role)
        self._add(message, message_id, actor, time, place)
        self.conversation.messages += 1
        self._complete_task(sent, actor, time, place)
        for call in calls:
            self._create_task(index, call, message_id, actor, time, f"{place}.{call.place}")

    def _create_task(
        self, index: int, call: ToolCall, message_id: UUID, actor: str, time: datetime | None, place: str
    ) -> None:
        if call.given_id is None:
            task_id = self._derived_id("task", index, call.place)
        else:
            task_id = self._task_ids.assign(call.given_id)
        if call.key is not None:
            self._open_calls.setdefault(call.key, []).append((task_id, call))
        created = TaskCreated(
            task_id=task_id,
            description=call.description,
            status=TaskStatus.IN_PROGRESS,
            given_id=call.given_id if call.given_id != str(task_id) else None,
            metadata={"message_id": str(message_id), "tool": call.name},
        )
        self._add(created, self._derived_id("created", str(task_id)), actor, time, place)
        self.conversation.tasks += 1

    def _complete_task(self, sent: Json, actor: str, time: datetime | None, place: str) -> None:
        """Complete the latest open call that the message is the result of."""
        key = _answered_call(sent)
        if key is None or not self._open_calls.get(key):
            return
        task_id, call = self._open_calls[key].pop()
        name = sent.get("name")
        result = TaskArtifactAdded(
            task_id=task_id,
            artifact_id=_RESULT_ARTIFACT_ID,
            parts=_result_parts(sent.get("content")),
            name=name if isinstance(name, str) else call.name,
        )
        completed = TaskStatusChanged(task_id=task_id, status=TaskStatus.COMPLETED)
        self._add(result, self._derived_id("result", str(task_id)), actor, time, place)
        self._add(completed, self._derived_id("completed", str(task_id)), actor, time, place)

    def _derived_id(self, *names: str | int) -> UUID:
        return derived_uuid("import", *self._scope, *names)

    def _add(self, data: EventData, event_id: UUID, actor: str, time: datetime | None, place: str) -> None:
        metadata = _WITHOUT_TIME if time is None else Metadata(occurred_at=time)
        self.conversation.events.append(NewEvent(data, event_id, actor, metadata))
        self.conversation.places.append(place)


_WITHOUT_TIME = Metadata()


# Tool calls, in the present format (tool_calls) and the first one (function_call)

CallKey: TypeAlias = tuple[str, str]
"""What a call and its result have in common: ``("id", ID)`` or, in the first format, ``("name", FUNCTION)``."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call in a message.

    Attributes:
        place: where in its message it is.
        given_id: its id, as a text.
        key: what its result names; None if no result can name it.
        name: of the function or tool.
        arguments: a text, usually JSON; or any JSON value.
    """

    place: str
    given_id: str | None
    key: CallKey | None
    name: str
    arguments: Any

    @property
    def description(self) -> str:
        """The call in the notation of a function call."""
        arguments = "" if self.arguments is None else self.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        return f"{self.name}({arguments})"


def _tool_calls(message: Json) -> list[ToolCall]:
    """Return the calls in a message.

    Raises:
        MalformedLine: they are not a list of objects.
    """
    entries = message.get("tool_calls")
    if not isinstance(entries, list | None):
        raise MalformedLine(f"tool_calls: is {_kind(entries)}, expected a list of tool calls")
    calls = []
    for index, entry in enumerate(entries or ()):
        place = f"tool_calls[{index}]"
        call = _checked_object(entry, place)
        given_id = _id_text(call.get("id"))
        calls.append(ToolCall(place, given_id, None if given_id is None else ("id", given_id), *_function(call)))
    first_format = message.get("function_call")
    if first_format is not None:
        name, arguments = _function(_checked_object(first_format, "function_call"))
        calls.append(ToolCall("function_call", None, ("name", name), name, arguments))
    return calls


def _function(call: Json) -> tuple[str, Any]:
    """Return name and arguments: from ``function``, from ``custom`` (``input``), or from the call itself."""
    holder = next((call[kind] for kind in ("function", "custom") if isinstance(call.get(kind), dict)), call)
    name = holder.get("name")
    return name if isinstance(name, str) else "unnamed", holder.get("arguments", holder.get("input"))


def _answered_call(message: Json) -> CallKey | None:
    """Return the key of the call that a message is the result of; None if it is not a result."""
    given_id = _id_text(message.get("tool_call_id"))
    if message["role"] in ("tool", "function") and given_id is not None:
        return "id", given_id
    if message["role"] == "function" and isinstance(message.get("name"), str):
        return "name", message["name"]
    return None


def _result_parts(content: Any) -> list[Json]:
    """Return the content of a tool message as the parts of an artifact: text parts, and data parts for all else."""
    parts = []
    for item in content if isinstance(content, list) else [] if content is None else [content]:
        if isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str):
            item = item["text"]
        parts.append({"kind": "text", "text": item} if isinstance(item, str) else {"kind": "data", "data": item})
    return parts


# A line as a JSON object, parsed strictly: what cannot be stored as it is, is rejected


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number: send null or a text")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def _parse(line: bytes) -> Json:
    try:
        sent = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise MalformedLine(f"is not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise MalformedLine(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError as error:
        raise MalformedLine(f"is not JSON: {error}") from None
    if not isinstance(sent, dict):
        raise MalformedLine(f"is {_kind(sent)}, expected an object with id, title and messages")
    return sent


def _checked_object(value: Any, place: str) -> Json:
    if not isinstance(value, dict):
        raise MalformedLine(f"{place}: is {_kind(value)}, expected an object")
    return value


def _id_text(value: Any) -> str | None:
    """Return an identifier as a text; texts and integers are identifiers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _unexpected(sent: Json, member: str, expected: str) -> str:
    found = f"is {_kind(sent[member])}" if member in sent else "is missing"
    return f"{member}: {found}, expected {expected}"


# Times of messages and conversations, in UTC

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SMALLEST_MILLISECONDS = 1e11
"""Larger numbers are milliseconds: as seconds this is the year 5138."""


def find_time(sent: Mapping[str, Any], zone: tzinfo = UTC) -> datetime | None:
    """Return the time of a message or conversation; None if it has none that can be read."""
    times = (read_time(sent[name], zone) for name in TIME_MEMBERS if name in sent)
    return next((time for time in times if time is not None), None)


def read_time(value: Any, zone: tzinfo = UTC) -> datetime | None:
    """Return the time that a JSON value means; None if it means none.

    It is a text in ISO 8601, in ``zone`` if it has no offset, or a number of seconds or milliseconds since 1970.

    Raises:
        InputError: the clocks of the zone never showed that time.
    """
    try:
        if isinstance(value, str):
            time = datetime.fromisoformat(value.strip())
            return read_local_time(time, zone) if time.tzinfo is None else time.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _EPOCH + timedelta(**{"milliseconds" if abs(value) > _SMALLEST_MILLISECONDS else "seconds": value})
    except (ValueError, OverflowError):
        pass
    return None


def read_local_time(local: datetime, zone: tzinfo, not_before: datetime | None = None) -> datetime:
    """Return a local time in UTC.

    Args:
        local: has no offset. If the clocks of the zone showed it twice, the first time is meant, unless that is before
            ``not_before``.

    Raises:
        InputError: the clocks of the zone never showed it, because they were put forward.
    """
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) != local.replace(fold=0):
        raise InputError(f"{local} does not exist in {zone}, where clocks were put forward: give another time zone")
    return second if not_before is not None and first < not_before else first


def time_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name.

    Raises:
        InputError: the system knows no zone of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # an unknown name, an invalid one, or the path of a folder
        raise InputError(
            f"time zone {name!r} is not known: give an IANA name, such as America/Sao_Paulo or UTC "
            "(if the system has no time zones, pip install tzdata)"
        ) from None
