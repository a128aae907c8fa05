"""Chat logs: one line of JSON in the OpenAI chat format, and the events that it means.

Who acts (``actor``): ``importer`` creates the conversation; messages, the calls that they make and the results that
they bring are of the message's role.

The ids of events and tasks are made from the ids in the line or, where there are none, from the place in it. The
two kinds come from different names, so that no id in a line can imitate a place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NoReturn, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

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

# Times in imported data, in UTC: of messages and conversations, with a time zone for those that name none

TIME_MEMBERS = ("timestamp", "created_at", "created", "create_time", "time")
"""The members that say so; the first that can be read counts."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS = 1e11  # as seconds that is the year 5138


def time_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name.

    Raises:
        InputError: the system knows no zone of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a name that is not known, not a name, or the path of a folder
        raise InputError(
            f"time zone {name!r} is not known: give an IANA name, such as America/Sao_Paulo or UTC "
            "(if the system has no time zones, pip install tzdata)"
        ) from None


def own_time(sent: Mapping[str, Any], zone: tzinfo = UTC) -> datetime | None:
    """Return the time of a message or conversation, None if it has none that can be read.

    ISO 8601, in ``zone`` if it names no offset, or seconds or milliseconds since 1970.
    """
    moments = (read_time(sent[name], zone) for name in TIME_MEMBERS if name in sent)
    return next((moment for moment in moments if moment is not None), None)


def read_time(value: Any, zone: tzinfo = UTC) -> datetime | None:
    """Return the time that a JSON value stands for; a text without an offset is a local time in ``zone``.

    Raises:
        InputError: the clocks of the zone never showed that time.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            return in_zone(moment, zone) if moment.tzinfo is None else moment.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _EPOCH + timedelta(**{"milliseconds" if abs(value) > _MILLISECONDS else "seconds": value})
    except (ValueError, OverflowError):
        pass
    return None


def in_zone(local: datetime, zone: tzinfo, not_before: datetime | None = None) -> datetime:
    """Return a local time in UTC.

    Args:
        local: without an offset. If the clocks of the zone showed it twice, it is the first time, unless that is before
            ``not_before``.

    Raises:
        InputError: the clocks of the zone never showed it, because they were put forward.
    """
    moments = [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    if moments[0].astimezone(zone).replace(tzinfo=None) != local.replace(fold=0):
        raise InputError(f"{local} does not exist in {zone}, where clocks were put forward: give another time zone")
    return moments[1] if not_before is not None and moments[0] < not_before else moments[0]


# A line of a file as a JSON object, read strictly: what cannot be stored as it stands is refused


class MalformedLine(InputError):
    """A line of a chat log does not have the shape of a conversation."""


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object in a line.

    Raises:
        MalformedLine: there is something else.
    """
    try:
        sent = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise MalformedLine(f"is not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise MalformedLine(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError as error:
        raise MalformedLine(f"is not JSON: {error}") from None
    if not isinstance(sent, dict):
        raise MalformedLine(f"is {described(sent)}, expected an object with id, title and messages")
    return sent


def id_text(value: Any) -> str | None:
    """An identifier as a text: texts and whole numbers are identifiers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def described(value: Any) -> str:
    """What kind of JSON value it is, for errors."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def expected(sent: dict[str, Any], member: str, what: str) -> str:
    """What is wrong with a member that is missing or of another kind."""
    found = f"is {described(sent[member])}" if member in sent else "is missing"
    return f"{member}: {found}, expected {what}"


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number: send null or a text")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


# Tool calls of chat messages, in today's shape (tool_calls) and the first one (function_call)

Key: TypeAlias = tuple[str, str]
"""What a result and its call have in common: ``("id", the call's id)`` or, in the first shape, ``("name", …)``."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call.

    Attributes:
        place: where in its message it stands.
        given_id: the call's id, as a text.
        key: how its result names it; None where it cannot.
        name: of the function or tool.
        arguments: a text, usually JSON; or any JSON value.
    """

    place: str
    given_id: str | None
    key: Key | None
    name: str
    arguments: Any

    @property
    def description(self) -> str:
        """The call as one would write it."""
        arguments = "" if self.arguments is None else self.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        return f"{self.name}({arguments})"


def calls_of(message: Mapping[str, Any]) -> list[ToolCall]:
    """The calls that a message makes.

    Raises:
        MalformedLine: they are no list of objects.
    """
    entries = message.get("tool_calls")
    if not isinstance(entries, list | None):
        raise MalformedLine(f"tool_calls: is {described(entries)}, expected a list of tool calls")
    calls = [_call(entry, f"tool_calls[{index}]") for index, entry in enumerate(entries or ())]
    legacy = message.get("function_call")
    if legacy is not None:
        name, arguments = _function(_object(legacy, "function_call"))
        calls.append(ToolCall("function_call", None, ("name", name), name, arguments))
    return calls


def answered_call(message: Mapping[str, Any]) -> Key | None:
    """Which call a message is the result of, if it is one."""
    given_id = id_text(message.get("tool_call_id"))
    if message["role"] in ("tool", "function") and given_id is not None:
        return "id", given_id
    if message["role"] == "function" and isinstance(message.get("name"), str):
        return "name", message["name"]
    return None


def result_parts(content: Any) -> list[dict[str, Any]]:
    """The content of a tool message as the parts of an artifact: text, or data where it is something else."""
    if content is None:
        return []
    return [_part(item) for item in (content if isinstance(content, list) else [content])]


def _call(entry: Any, place: str) -> ToolCall:
    call = _object(entry, place)
    given_id = id_text(call.get("id"))
    name, arguments = _function(call)
    return ToolCall(place, given_id, None if given_id is None else ("id", given_id), name, arguments)


def _function(call: dict[str, Any]) -> tuple[str, Any]:
    """Name and arguments: in ``function``, in ``custom`` (``input``), or in the call itself."""
    inner = next((call[kind] for kind in ("function", "custom") if isinstance(call.get(kind), dict)), call)
    name = inner.get("name")
    return name if isinstance(name, str) else "unnamed", inner.get("arguments", inner.get("input"))


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedLine(f"{place}: is {described(value)}, expected an object")
    return value


def _part(item: Any) -> dict[str, Any]:
    if isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str):
        item = item["text"]
    return {"kind": "text", "text": item} if isinstance(item, str) else {"kind": "data", "data": item}


# One line of a chat log, and the events that it means

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
