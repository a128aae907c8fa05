"""Recording an agent's answer as events: every update is stored, or a note of why it cannot be.

A text keeps what can be kept of it; any other value gives way to a note. An event that is too large is made several
where its kind allows it: an artifact by its parts, and a long text by pieces that continue it; a history by its
messages. Only what is too large by itself, or cannot be divided, is cut or gives way.

A member of an update that has no place of its own in an event stands in the event's ``extra`` (members of a message,
task, status or artifact) or ``update`` (members of the update around them: ``contextId``, ``final``, ``append``). Ids
are kept as they came, whatever was asked for: an agent that speaks of another task or context than its caller is
recorded, in the conversation that it answers in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast
from uuid import UUID, uuid4

from agent_manager.a2a import (
    FINAL,
    Json,
    agent_role,
    append_chunk,
    artifact_delta,
    artifact_event,
    merge_texts,
    state_name,
    status_of,
    version_of,
)
from agent_manager.agents.agent import Answer, ArtifactUpdate, Reply, StatusUpdate, TaskSnapshot, Update
from agent_manager.errors import InvalidUpdate
from eventstore import (
    EventData,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    message_from_sent,
)
from eventstore.ids import derived_uuid, is_canonical_uuid
from eventstore.json_text import MAX_DEPTH, to_json
from eventstore.message_format import ROLES
from eventstore.vocabulary import TaskStatus, TaskStatusChanged

# What cannot be stored of what an agent said: a note with the reason takes its place, so that the rest is stored

NOTE = "eventstore:not_stored"
"""The member that holds the note in place of members that cannot be stored."""

_DEPTH = MAX_DEPTH - 8
"""Levels of nesting in an update: its event puts a few around what it holds."""
_SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))
_NOTE_BYTES = 200
"""What a note takes, at most."""
_ESCAPED = 6
"""Bytes of a character as JSON, at most."""


def storable(update: Update) -> Update:
    """Return the update with notes in place of the values that cannot be stored, however small the event."""
    return replace(update, **{field.name: _value(getattr(update, field.name), 1) for field in fields(update)})


def storable_text(text: str) -> str:
    """Return a text as it can be stored; if a character of it cannot be, with a note."""
    repaired = text.replace("\0", "\ufffd")
    try:
        repaired.encode()
    except UnicodeEncodeError:  # halves of a character that belong together are one again
        repaired = repaired.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if repaired.count("\ufffd") == text.count("\ufffd"):
        return str.__str__(repaired)
    offset = next(index for index, character in enumerate(text) if character == "\0" or character in _SURROGATES)
    what = "a NUL character" if text[offset] == "\0" else "a lone surrogate"
    return f"{repaired} {_note(f'{what} at offset {offset}, which PostgreSQL cannot store as text')}"


def fitting(event: NewEvent, limit: int) -> list[NewEvent]:
    """Return events that together keep an event whose content is larger than the limit, as far as they can.

    Args:
        limit: bytes of the content of an event as JSON.
    """
    if _size(event.data.to_content()) <= limit:
        return [event]
    divided = [_shrunk(data, limit) for data in _divided(event.data, limit)]
    return [replace(event, data=data, id=event.id if number == 0 else uuid4()) for number, data in enumerate(divided)]


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _note(f"the number {value}, which JSON does not have")
    if isinstance(value, int):
        try:
            return int(str(int(value)))
        except ValueError:  # Python's own bound on the digits that it converts
            return _note("an integer of more digits than can be read back")
    if not isinstance(value, dict | list | tuple):
        return _note(f"a {type(value).__name__}, which JSON cannot express")
    if depth > _DEPTH:
        return _note(f"values that are nested deeper than {_DEPTH} levels")
    if isinstance(value, dict):
        return {storable_text(str(key)): _value(item, depth + 1) for key, item in value.items()}
    return [_value(item, depth + 1) for item in value]


def _divided(data: EventData, limit: int) -> list[EventData]:
    match data:
        case TaskArtifactAdded() | TaskArtifactExtended():
            return _divided_artifact(data, limit)
        case TaskDescribed(history=list() as history):
            return _divided_history(data.model_copy(update={"history": []}), history, limit)
        case TaskCreated(extra=dict() as extra) | TaskDescribed(extra=dict() as extra):
            if isinstance(messages := extra.get("history"), list):
                return _divided_history(data.model_copy(update={"extra": extra | {"history": []}}), messages, limit)
    return [data]


def _divided_artifact(data: TaskArtifactAdded | TaskArtifactExtended, limit: int) -> list[EventData]:
    head = _shrunk(data.model_copy(update={"parts": []}), limit // 2)
    room = limit - _size(head.to_content())
    packs: list[tuple[list[Any], bool]] = [([], False)]
    left = room
    for part, continues in _pieces(data.parts, room):
        size = _size(part) + 1
        if (size > left and packs[-1][0]) or continues:
            packs.append(([], continues))
            left = room
        packs[-1][0].append(part)
        left -= size
    names: Json = {"task_id": data.task_id, "artifact_id": cast("TaskArtifactAdded", head).artifact_id}
    first, *rest = packs
    divided: list[EventData] = [head.model_copy(update={"parts": first[0], "last_chunk": data.last_chunk and not rest})]
    for number, (parts, continues) in enumerate(rest, 1):
        is_last = data.last_chunk and number == len(rest)
        divided.append(TaskArtifactExtended(**names, parts=parts, last_chunk=is_last, continues_text=continues or None))
    return divided


def _pieces(parts: list[Any], room: int) -> Iterable[tuple[Any, bool]]:
    """Parts that fit, and whether each continues the text of the one before."""
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if _size(part) <= room or not isinstance(text, str) or _size(part | {"text": ""}) > room // 2:
            yield part, False
            continue
        step = max(1, room // 2 // _ESCAPED)
        for start in range(0, len(text), step):
            yield part | {"text": text[start : start + step]}, start > 0


def _divided_history(head: EventData, history: list[Any], limit: int) -> list[EventData]:
    packs: list[list[Any]] = [[]]
    task_id = cast("TaskDescribed", head).task_id
    room = left = limit - _size(TaskDescribed(task_id=task_id, history=[]).to_content())
    for message in history:
        kept = _shrunk_value(message, room - 1) if isinstance(message, dict) else message
        size = _size(kept) + 1
        if size > left and packs[-1]:
            packs.append([])
            left = room
        packs[-1].append(kept)
        left -= size
    return [head, *(TaskDescribed(task_id=task_id, history=pack) for pack in packs)]


def _shrunk(data: EventData, limit: int) -> EventData:
    content = data.to_content()
    return data if _size(content) <= limit else type(data)(**_shrunk_value(content, limit))


def _shrunk_value(value: Json, limit: int) -> Json:
    """Return an object that takes no more than the limit: again and again the largest value gives way."""
    while (size := _size(value)) > limit:
        value = _with_less(value, size - limit, "", limit)
    return value


def _with_less(value: Any, excess: int, name: str, limit: int) -> Any:
    """Return a value that takes less, if possible by as much as is to go."""
    if isinstance(value, str):
        size = _size(value)
        room = max(size - excess - _NOTE_BYTES, min(size, limit) // 4)  # others may have to give way too
        kept = value[: len(value) * room // size]
        while _size(kept) > room and kept:  # its beginning takes more bytes a character than all of it
            kept = kept[: len(kept) * 3 // 4]
        return f"{kept} {_note(f'the rest of a text of {size:,} bytes', limit)}".strip()
    if not isinstance(value, dict | list):
        return value
    sizes = {key: _size(item) for key, item in (value.items() if isinstance(value, dict) else enumerate(value))}
    largest = max(sizes, key=lambda key: sizes[key])
    item, size = value[largest], sizes[largest]
    if size <= _NOTE_BYTES:
        return _with_fewer(value, sizes, excess, limit)
    is_part = name == "parts" and not (isinstance(item, dict) and isinstance(item.get("text"), str))
    if is_part or not isinstance(item, dict | list | str):
        less: Any = _part_note(item, size, limit)
    else:
        less = _with_less(item, excess, str(largest), limit)
    if isinstance(value, dict):
        return value | {largest: less}
    return [less if key == largest else one for key, one in enumerate(value)]


def _with_fewer(value: Any, sizes: dict[Any, int], excess: int, limit: int) -> Any:
    """Return a value without its last members, of which there are many small ones."""
    kept, freed = list(sizes), 0
    while kept and freed < excess + _NOTE_BYTES:
        last = kept.pop()
        freed += sizes[last] + 1 + (_size(last) + 1 if isinstance(value, dict) else 0)
    text = _note(f"{len(sizes) - len(kept):,} further values of {freed:,} bytes", limit)
    if isinstance(value, dict):
        return {key: value[key] for key in kept} | {NOTE: text}
    return [*(value[key] for key in kept), {"text": text} if all(isinstance(one, dict) for one in value) else text]


def _part_note(part: Any, size: int, limit: int) -> Json:
    head: Json = {}
    about: list[str] = []
    if isinstance(part, dict):
        head = {"kind": "text"} if "kind" in part else {}
        inner = part["file"] if isinstance(part.get("file"), dict) else part
        names = ("mimeType", "mediaType", "name", "filename")
        about = [inner[name][:40] for name in names if isinstance(inner.get(name), str)]
    what = f"a part ({', '.join(about)})" if about else "a part"
    return head | {"text": _note(f"{what} of {size:,} bytes", limit)}


def _note(what: str, limit: int | None = None) -> str:
    reason = "" if limit is None else f", the limit of an event is {limit:,} bytes"
    return f"[not stored: {what}{reason}]"


def _size(value: Any) -> int:
    return len(to_json(value, "value"))


# One answering as events: what an agent's updates become in the log, as they arrive and with nothing left out

DEFAULT_ACTOR = "agent"
_TASK_PLACES = ("id", "status", "artifacts", "metadata")


def task_uuid(tenant: str, conversation_id: UUID, text: str) -> UUID:
    """The id of the task that an agent calls ``text`` in a conversation."""
    return UUID(text) if is_canonical_uuid(text) else derived_uuid("task", tenant, str(conversation_id), text, 0)


def agent_name(answer: Answer | None) -> str:
    """Return the actor of the events that an agent causes."""
    return storable_text(str(getattr(answer, "name", None) or DEFAULT_ACTOR))[:255]


@dataclass(slots=True)
class RecordedTask:
    """What is recorded of a task, as far as it is known: only what differs from it is recorded again.

    Attributes:
        status: as it was sent; None if it is not known.
        extra: further members of the task, such as its history.
        artifacts: as they were sent, by their ids.
    """

    status: Json | None = None
    extra: Json | None = None
    metadata: Json | None = None
    artifacts: dict[str, Json] = field(default_factory=dict)


class Recording:
    """Keeps the state of one answering.

    Args:
        tenant: of the conversation.
        conversation_id: that is being answered in, whatever contextId the agent writes.
        answer: what answers; its ``name``, where it has one, becomes the actor of the events.
        description: of tasks that begin now, usually the text of the message.
        known_task: what is recorded of a task of the conversation, by its id as the agent gave it; None if it begins.
        causation_id: of the events, usually the id of the message's event.
        message_id: gives the event's id for a reply's ``messageId``; a new one each time where it is not given.
    """

    def __init__(
        self,
        tenant: str,
        conversation_id: UUID,
        *,
        answer: Answer | None = None,
        description: str = "",
        known_task: Callable[[str], RecordedTask | None] | None = None,
        causation_id: str | None = None,
        message_id: Callable[[str], UUID] | None = None,
    ) -> None:
        self._scope = (tenant, conversation_id)
        self._answer = answer
        self._description = description
        self._known_task = known_task
        self._tasks: dict[str, RecordedTask] = {}
        self._metadata = Metadata(causation_id=causation_id)
        self._message_id = message_id
        self._last_task: str | None = None

    @property
    def task_id(self) -> UUID | None:
        """The task that the agent spoke of last, if it spoke of any."""
        return None if self._last_task is None else task_uuid(*self._scope, self._last_task)

    def events_of(self, update: Update) -> list[NewEvent]:
        """The events that keep an update, to be appended together.

        Raises:
            InvalidUpdate: it holds a task without an id.
            InvalidEvent: a value in it cannot be stored.
        """
        match update:
            case Reply(message):
                return [self._reply(message)]
            case TaskSnapshot(task):
                events = self._task_seen(task)
            case StatusUpdate():
                events = self._status_update(update)
            case ArtifactUpdate():
                events = self._artifact_update(update)
        return [self._event(event) for event in events]

    def failed(self, reason: str) -> list[NewEvent]:
        """How a failed answering ends: the task that it spoke of last has failed, if it had not come to its end."""
        if self._last_task is None:
            return []
        seen = self._tasks[self._last_task]
        if seen.status is not None and status_of(seen.status.get("state")) in FINAL:
            return []
        task_id = task_uuid(*self._scope, self._last_task)
        seen.status = {"state": state_name(TaskStatus.FAILED, "0.3")}
        return [self._event(TaskStatusChanged(task_id=task_id, status=TaskStatus.FAILED, metadata={"error": reason}))]

    def _reply(self, message: Json) -> NewEvent:
        given_id = message.get("messageId")
        text = given_id if isinstance(given_id, str) else None
        role = message.get("role")
        if isinstance(role, str) and role in ROLES:
            event = message_from_sent(message, given_id=text)
        else:  # it answers, so it is the agent; what it wrote is given back all the same
            event = message_from_sent(message | {"role": agent_role(version_of(message))}, given_id=text)
            if "role" in message:
                event = event.model_copy(update={"extra": {**(event.extra or {}), "role": role}})
        return self._event(event, self._message_id(text) if self._message_id and text is not None else None)

    def _task_seen(self, task: Json) -> list[EventData]:
        text = task.get("id")
        if not isinstance(text, str):
            raise InvalidUpdate(f"the agent sent a task whose id is {text!r:.80}, expected a text")
        status = task.get("status")
        kept = {name: value for name, value in task.items() if name not in _TASK_PLACES}
        for name, kind in (("status", dict), ("artifacts", list), ("metadata", dict)):
            if name in task and not isinstance(task[name], kind):
                kept[name] = task[name]
        metadata = task["metadata"] if isinstance(task.get("metadata"), dict) else None
        events = self._told(text, kept or None, metadata, status if isinstance(status, dict) else {})
        artifacts = task.get("artifacts")
        # Unless the task is completed, what the agent shows of an artifact need not be all of it.
        is_whole = status_of(status.get("state") if isinstance(status, dict) else None) is TaskStatus.COMPLETED
        for artifact in artifacts if isinstance(artifacts, list) else []:
            events += self._artifact_seen(text, artifact, is_whole)
        return events

    def _told(self, text: str, extra: Json | None, metadata: Json | None, status: Json) -> list[EventData]:
        """A task begins, or what is said of it has changed; and its status."""
        task_id, seen = task_uuid(*self._scope, text), self._seen(text)
        events: list[EventData] = []
        if seen is None:
            seen = self._tasks[text] = RecordedTask()
            given_id = text if str(task_id) != text else None
            events.append(
                TaskCreated(
                    task_id=task_id, description=self._description, status=status_of(status.get("state")),
                    given_id=given_id, extra=extra, metadata=metadata,
                )
            )  # fmt: skip
            if not _status_members(status) and "message" not in status:
                seen.status = status
        else:
            events += _described(task_id, seen, extra, metadata)
        seen.extra = seen.extra if extra is None else extra
        seen.metadata = seen.metadata if metadata is None else metadata
        if seen.status != status and status:
            events.append(self._status_changed(text, status))
        return events

    def _seen(self, text: str) -> RecordedTask | None:
        """What is recorded of the task that the agent speaks of now."""
        self._last_task = text
        if text not in self._tasks and self._known_task is not None and (known := self._known_task(text)) is not None:
            self._tasks[text] = known
        return self._tasks.get(text)

    def _status_update(self, update: StatusUpdate) -> list[EventData]:
        around = _around(update.context_id, update.extra) | ({"final": True} if update.final else {})
        began = self._begun(update.task_id, update.context_id)
        return [*began, self._status_changed(update.task_id, update.status, around, update.metadata)]

    def _status_changed(
        self, text: str, status: Json, update: Json | None = None, metadata: Json | None = None
    ) -> TaskStatusChanged:
        self._tasks[text].status = status
        message = status.get("message")
        extra = _status_members(status)
        if "message" in status and not isinstance(message, dict):
            extra["message"] = message
        return TaskStatusChanged(
            task_id=task_uuid(*self._scope, text),
            status=status_of(status.get("state")),
            message=message if isinstance(message, dict) else None,
            extra=extra or None,
            update=update or None,
            metadata=metadata,
        )

    def _artifact_update(self, update: ArtifactUpdate) -> list[EventData]:
        around = _around(update.context_id, update.extra)
        if update.append:
            around["append"] = True
        if update.last_chunk is not None:
            around["lastChunk"] = update.last_chunk
        if update.metadata is not None:
            around["metadata"] = update.metadata
        began = self._begun(update.task_id, update.context_id)
        artifacts, key = self._tasks[update.task_id].artifacts, artifact_key(update.artifact)
        known, chunk, append, continues = artifacts.get(key), update.artifact, update.append, False
        if not append and known is not None and (grown := artifact_delta(known, chunk)) is not None:
            (chunk, continues), append = grown, True
        artifacts[key] = append_chunk(known, chunk, continues=continues) if append and known is not None else chunk
        event = artifact_event(
            task_uuid(*self._scope, update.task_id), chunk, append=append, last_chunk=update.last_chunk is True,
            update=around, continues=continues,
        )  # fmt: skip
        return [*began, event]

    def _artifact_seen(self, text: str, artifact: Any, is_whole: bool) -> list[EventData]:
        """Of an artifact of a task that is shown whole: what is not recorded yet.

        Texts of several chunks that the agent has put together into one part are recorded already.
        """
        sent = artifact if isinstance(artifact, dict) else {"value": artifact}
        artifacts, key, task_id = self._tasks[text].artifacts, artifact_key(sent), task_uuid(*self._scope, text)
        known = artifacts.get(key)
        if known is None:
            artifacts[key] = sent
            return [artifact_event(task_id, sent, append=False, last_chunk=is_whole)]
        if known == sent or merge_texts(known) == merge_texts(sent):
            return []
        grown = artifact_delta(known, sent) or artifact_delta(merge_texts(known), merge_texts(sent))
        chunk, continues = grown if grown is not None else (sent, False)
        artifacts[key] = sent if grown is None else append_chunk(known, chunk, continues=continues)
        append = grown is not None
        return [artifact_event(task_id, chunk, append=append, last_chunk=is_whole, continues=continues)]

    def _begun(self, text: str, context_id: str | None) -> list[EventData]:
        """A task that nobody announced begins with its first update."""
        if self._seen(text) is not None:
            return []
        return self._told(text, _around(context_id, None) or None, None, {"state": "submitted"})

    def _event(self, data: EventData, event_id: UUID | None = None) -> NewEvent:
        return NewEvent(data, id=event_id or uuid4(), actor=agent_name(self._answer), metadata=self._metadata)


def _described(task_id: UUID, seen: RecordedTask, extra: Json | None, metadata: Json | None) -> list[EventData]:
    """What is new about a task; of a history that has grown, the messages that came to it."""
    extra = None if extra == seen.extra else extra
    metadata = None if metadata == seen.metadata else metadata
    if extra is None and metadata is None:
        return []
    history = None
    before, now = (seen.extra or {}).get("history"), (extra or {}).get("history")
    if extra is not None and isinstance(before, list) and isinstance(now, list) and now[: len(before)] == before:
        history = now[len(before) :]
        rest, known = ({n: v for n, v in one.items() if n != "history"} for one in (extra, seen.extra or {}))
        extra = None if rest == known else rest
    return [TaskDescribed(task_id=task_id, extra=extra, history=history, metadata=metadata)]


def _status_members(status: Json) -> Json:
    """What a status holds beside state and message; the state's word where it is not 0.3's own."""
    extra = {name: value for name, value in status.items() if name not in ("state", "message")}
    if "state" in status and status["state"] != state_name(status_of(status["state"]), "0.3"):
        extra["state"] = status["state"]
    return extra


def _around(context_id: str | None, extra: Json | None) -> Json:
    return ({"contextId": context_id} if context_id is not None else {}) | (extra or {})


def artifact_key(artifact: Json) -> str:
    """Return what tells an artifact from others of its task."""
    key = artifact.get("artifactId")
    return key if isinstance(key, str) else ""
