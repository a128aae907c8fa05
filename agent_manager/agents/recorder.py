"""Recording of an agent's answer as events: every update is stored, or a note that says why it cannot be.

A text is stored as far as possible; a note replaces any other value that cannot be stored. An event that is too large
is divided if its type allows it: an artifact by its parts, a long text into chunks that continue it, a history by its
messages. Only a value that is too large by itself, or cannot be divided, is shortened or replaced.

A member of an update without a place of its own in an event is stored in the event's ``extra`` (members of a message,
task, status or artifact) or ``update`` (members of the update around them: ``contextId``, ``final``, ``append``). Ids
are stored as the agent sent them: an update for another task or context than that of the message is recorded in the
conversation that the agent answers in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, cast
from uuid import UUID, uuid4

from agent_manager.a2a import (
    FINAL,
    Json,
    Version,
    agent_message,
    agent_role,
    append_chunk,
    artifact_delta,
    artifact_event,
    merge_texts,
    state_name,
    status_of,
    text_part,
    version_of,
)
from agent_manager.agents.agent import Answer, ArtifactUpdate, Reply, ReplyChunk, StatusUpdate, TaskSnapshot, Update
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
from eventstore.errors import printable
from eventstore.event_types import TaskStatus, TaskStatusChanged
from eventstore.ids import derived_uuid, is_canonical_uuid
from eventstore.json_text import MAX_DEPTH, to_json
from eventstore.message_format import ROLES

DEFAULT_ACTOR = "agent"
_TASK_MEMBERS = ("id", "status", "artifacts", "metadata")
"""Members of a task that have a place in its events; all others are stored in ``extra``."""
_ARTIFACT_MEMBERS = ("name", "description", "extra", "metadata")
"""Members of an artifact, beside its parts, that a chunk may repeat."""
_CHUNK_MEMBERS = ("append", "lastChunk")
"""Members of an update that say how it continues an artifact."""


@dataclass(slots=True)
class RecordedTask:
    """The recorded state of a task, as far as it is known: only what differs from it is recorded.

    Attributes:
        status: the status as it was sent; None if it is not known.
        extra: further members of the task, such as its history.
        artifacts: the artifacts as they were sent, by their ids.
    """

    status: Json | None = None
    extra: Json | None = None
    metadata: Json | None = None
    artifacts: dict[str, Json] = field(default_factory=dict)


@dataclass(eq=False)
class Recording:
    """The recording of one answer.

    Attributes:
        tenant: the tenant of the conversation.
        conversation_id: the conversation of the message that is answered, whatever ``contextId`` the agent sends.
        answer: the agent; its ``name``, if it has one, becomes the actor of the events.
        description: the description of new tasks, usually the text of the message.
        known_task: returns the recorded state of a task by the id that the agent chose; None for a new task.
        causation_id: the cause of the events, usually the id of the message's event.
    """

    tenant: str
    conversation_id: UUID
    _: KW_ONLY
    answer: Answer | None = None
    description: str = ""
    known_task: Callable[[str], RecordedTask | None] | None = None
    causation_id: str | None = None
    _tasks: dict[str, RecordedTask] = field(default_factory=dict, init=False)
    _latest_task: str | None = field(default=None, init=False)

    @property
    def task_id(self) -> UUID | None:
        """The latest task of the answer; None if it has none."""
        return None if self._latest_task is None else self._task_uuid(self._latest_task)

    def events_of(self, update: Update) -> list[NewEvent]:
        """Return the events that store an update, to be appended together.

        Raises:
            InvalidUpdate: the update contains a task without an id.
            InvalidEvent: a value in it cannot be stored.
        """
        match update:
            case Reply(message) | ReplyChunk(message):
                return [self._reply(message)]
            case TaskSnapshot(task):
                events = self._snapshot(task)
            case StatusUpdate():
                events = self._status_update(update)
            case ArtifactUpdate():
                events = self._artifact_update(update)
        return [self._event(event) for event in events]

    def failed(self, reason: str) -> list[NewEvent]:
        """Return the events of a failure: the latest task has failed, unless it is in a final state."""
        if self._latest_task is None:
            return []
        recorded = self._tasks[self._latest_task]
        if recorded.status is not None and status_of(recorded.status.get("state")) in FINAL:
            return []
        version = version_of({"status": recorded.status})
        recorded.status = {"state": state_name(TaskStatus.FAILED, "0.3")}
        task_id = self._task_uuid(self._latest_task)
        return [self._event(task_failed(task_id, reason, self.causation_id, version))]

    def _reply(self, message: Json) -> NewEvent:
        message_id, role = message.get("messageId"), message.get("role")
        given_id = message_id if isinstance(message_id, str) else None
        if isinstance(role, str) and role in ROLES:
            event = message_from_sent(message, given_id=given_id)
        else:  # stored as the agent's message; the value that it sent as the role is returned all the same
            event = message_from_sent(message | {"role": agent_role(version_of(message))}, given_id=given_id)
            if "role" in message:
                event = event.model_copy(update={"extra": {**(event.extra or {}), "role": role}})
        return self._event(event)

    def _snapshot(self, task: Json) -> list[EventData]:
        given_id, status, artifacts = task.get("id"), task.get("status"), task.get("artifacts")
        if not isinstance(given_id, str):
            raise InvalidUpdate(f"the agent sent a task whose id is {given_id!r:.80}, expected a text")
        extra = {name: value for name, value in task.items() if name not in _TASK_MEMBERS}
        for name, kind in (("status", dict), ("artifacts", list), ("metadata", dict)):
            if name in task and not isinstance(task[name], kind):
                extra[name] = task[name]
        metadata = task["metadata"] if isinstance(task.get("metadata"), dict) else None
        status = status if isinstance(status, dict) else {}
        events = self._task_events(given_id, extra or None, metadata, status)
        # An artifact in a snapshot may be incomplete unless the task is completed.
        is_complete = status_of(status.get("state")) is TaskStatus.COMPLETED
        for artifact in artifacts if isinstance(artifacts, list) else []:
            events += self._artifact_snapshot(given_id, artifact, is_complete)
        return events

    def _status_update(self, update: StatusUpdate) -> list[EventData]:
        members = _update_members(update.context_id, update.extra) | ({"final": True} if update.final else {})
        created = self._created(update.task_id, update.context_id)
        return [*created, self._status_changed(update.task_id, update.status, members, update.metadata)]

    def _artifact_update(self, update: ArtifactUpdate) -> list[EventData]:
        members = _update_members(update.context_id, update.extra)
        if update.append:
            members["append"] = True
        if update.last_chunk is not None:
            members["lastChunk"] = update.last_chunk
        if update.metadata is not None:
            members["metadata"] = update.metadata
        created = self._created(update.task_id, update.context_id)
        artifacts, key = self._tasks[update.task_id].artifacts, artifact_key(update.artifact)
        known, chunk, append, continues = artifacts.get(key), update.artifact, update.append, False
        if not append and known is not None and (delta := artifact_delta(known, chunk)) is not None:
            (chunk, continues), append = delta, True
        artifacts[key] = append_chunk(known, chunk, continues=continues) if append and known is not None else chunk
        event = artifact_event(
            self._task_uuid(update.task_id), chunk, append=append, last_chunk=update.last_chunk is True,
            update=members, continues=continues,
        )  # fmt: skip
        return [*created, event]

    def _artifact_snapshot(self, given_id: str, artifact: Any, is_complete: bool) -> list[EventData]:
        """Return the event for the part of an artifact that is not recorded yet.

        Chunks whose texts the agent has merged into one part are recorded already.
        """
        sent = artifact if isinstance(artifact, dict) else {"value": artifact}
        artifacts, key, task_id = self._tasks[given_id].artifacts, artifact_key(sent), self._task_uuid(given_id)
        known = artifacts.get(key)
        if known is not None and (known == sent or merge_texts(known) == merge_texts(sent)):
            return []
        delta = known and (artifact_delta(known, sent) or artifact_delta(merge_texts(known), merge_texts(sent)))
        if known is None or not delta:
            artifacts[key] = sent
            return [artifact_event(task_id, sent, append=False, last_chunk=is_complete)]
        chunk, continues = delta
        artifacts[key] = append_chunk(known, chunk, continues=continues)
        return [artifact_event(task_id, chunk, append=True, last_chunk=is_complete, continues=continues)]

    def _created(self, given_id: str, context_id: str | None) -> list[EventData]:
        """Return the events that create a task whose first update is not a snapshot; none for a known task."""
        if self._recorded(given_id) is not None:
            return []
        return self._task_events(given_id, _update_members(context_id, None) or None, None, {"state": "submitted"})

    def _task_events(self, given_id: str, extra: Json | None, metadata: Json | None, status: Json) -> list[EventData]:
        """Return the events for a new task, or for the changes of a known one, and for its status."""
        task_id, recorded = self._task_uuid(given_id), self._recorded(given_id)
        events: list[EventData] = []
        if recorded is None:
            recorded = self._tasks[given_id] = RecordedTask()
            events.append(
                TaskCreated(
                    task_id=task_id, description=self.description, status=status_of(status.get("state")),
                    given_id=given_id if str(task_id) != given_id else None, extra=extra, metadata=metadata,
                )
            )  # fmt: skip
            if not _status_extra(status) and "message" not in status:
                recorded.status = status
        else:
            events += _changes(task_id, recorded, extra, metadata)
        recorded.extra = recorded.extra if extra is None else extra
        recorded.metadata = recorded.metadata if metadata is None else metadata
        if recorded.status != status and status:
            events.append(self._status_changed(given_id, status))
        return events

    def _status_changed(
        self, given_id: str, status: Json, update: Json | None = None, metadata: Json | None = None
    ) -> TaskStatusChanged:
        self._tasks[given_id].status = status
        message, extra = status.get("message"), _status_extra(status)
        if "message" in status and not isinstance(message, dict):
            extra["message"] = message
        return TaskStatusChanged(
            task_id=self._task_uuid(given_id),
            status=status_of(status.get("state")),
            message=message if isinstance(message, dict) else None,
            extra=extra or None,
            update=update or None,
            metadata=metadata,
        )

    def _recorded(self, given_id: str) -> RecordedTask | None:
        """Return the recorded state of a task, and make it the latest."""
        self._latest_task = given_id
        if given_id not in self._tasks and self.known_task is not None:
            known = self.known_task(given_id)
            if known is not None:
                self._tasks[given_id] = known
        return self._tasks.get(given_id)

    def _task_uuid(self, given_id: str) -> UUID:
        return task_uuid(self.tenant, self.conversation_id, given_id)

    def _event(self, data: EventData) -> NewEvent:
        return NewEvent(data, actor=actor_of(self.answer), metadata=Metadata(causation_id=self.causation_id))


def actor_of(answer: Answer | None) -> str:
    """Return the actor of the events of an agent's answer."""
    return storable_text(str(getattr(answer, "name", None) or DEFAULT_ACTOR))[:255]


def _changes(task_id: UUID, recorded: RecordedTask, extra: Json | None, metadata: Json | None) -> list[EventData]:
    """Return the event for the members of a task that changed; for a history that grew, it has the new messages."""
    extra = None if extra == recorded.extra else extra
    metadata = None if metadata == recorded.metadata else metadata
    if extra is None and metadata is None:
        return []
    known, history = recorded.extra or {}, None
    before, now = known.get("history"), (extra or {}).get("history")
    if extra is not None and isinstance(before, list) and isinstance(now, list) and now[: len(before)] == before:
        history = now[len(before) :]
        rest, known_rest = ({n: v for n, v in each.items() if n != "history"} for each in (extra, known))
        extra = None if rest == known_rest else rest
    return [TaskDescribed(task_id=task_id, extra=extra, history=history, metadata=metadata)]


def _status_extra(status: Json) -> Json:
    """Return the members of a status other than state and message; the state, too, if it is not 0.3's name."""
    extra = {name: value for name, value in status.items() if name not in ("state", "message")}
    if "state" in status and status["state"] != state_name(status_of(status["state"]), "0.3"):
        extra["state"] = status["state"]
    return extra


def _update_members(context_id: str | None, extra: Json | None) -> Json:
    return ({"contextId": context_id} if context_id is not None else {}) | (extra or {})


def artifact_key(artifact: Json) -> str:
    """Return the id of an artifact; an empty text if it has none."""
    key = artifact.get("artifactId")
    return key if isinstance(key, str) else ""


def task_failed(task_id: UUID, reason: str, causation_id: str | None, version: Version = "0.3") -> TaskStatusChanged:
    """Return the failure of a task that its agent did not report: the message of its status has the reason."""
    message_id = str(derived_uuid("failed", str(task_id), causation_id or ""))
    message = agent_message([text_part(reason, version)], version, message_id)
    return TaskStatusChanged(task_id=task_id, status=TaskStatus.FAILED, message=message, metadata={"error": reason})


def merged(events: Iterable[NewEvent]) -> list[NewEvent]:
    """Return the events, with consecutive chunks of an artifact in one event if nothing is lost by that."""
    result: list[NewEvent] = []
    for event in events:
        if result and (data := _merged(result[-1].data, event.data)) is not None:
            result[-1] = replace(result[-1], data=data)
        else:
            result.append(event)
    return result


def _merged(first: EventData, second: EventData) -> EventData | None:
    if not isinstance(first, TaskArtifactAdded | TaskArtifactExtended) or not isinstance(second, TaskArtifactExtended):
        return None
    if first.last_chunk or (first.task_id, first.artifact_id) != (second.task_id, second.artifact_id):
        return None
    if any(getattr(second, name) not in (None, getattr(first, name)) for name in _ARTIFACT_MEMBERS):
        return None
    members = [{n: v for n, v in (each.update or {}).items() if n not in _CHUNK_MEMBERS} for each in (first, second)]
    if members[0] != members[1]:
        return None
    whole = append_chunk({"parts": first.parts}, {"parts": second.parts}, continues=second.continues_text is True)
    update = dict(first.update or {})
    if second.update is not None and "lastChunk" in second.update:
        update["lastChunk"] = second.update["lastChunk"]
    return first.model_copy(update={"parts": whole["parts"], "last_chunk": second.last_chunk, "update": update or None})


def task_uuid(tenant: str, conversation_id: UUID, given_id: str) -> UUID:
    """Return the id of a task by the id that its agent gave it in a conversation."""
    if is_canonical_uuid(given_id):
        return UUID(given_id)
    return derived_uuid("task", tenant, str(conversation_id), given_id, 0)


# Values that cannot be stored: a note with the reason replaces each, so that all others are stored

NOTE = "eventstore:not_stored"
"""The member with the note that replaces members of an object."""

_MAX_DEPTH = MAX_DEPTH - 8
"""Levels of nesting in an update: its event adds a few."""
_SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))
_NOTES = re.compile(r"\[not stored: [^\]]*\]")
_NOTE_BYTES, _NAME_BYTES = 600, 40
"""Largest size of a note, and of a file's name and type in it."""
_CHARACTER_BYTES = 6
"""Largest size of a character as JSON."""


def storable(update: Update) -> Update:
    """Return an update with notes in place of the values that cannot be stored, whatever the size of the event."""
    return replace(update, **{each.name: _storable_value(getattr(update, each.name), 1) for each in fields(update)})


def storable_text(text: str) -> str:
    """Return a text with characters that cannot be stored replaced, and a note if there are any."""
    repaired = text.replace("\0", "\ufffd")
    try:
        repaired.encode()
    except UnicodeEncodeError:  # also combines surrogates that form one character
        repaired = repaired.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if repaired.count("\ufffd") == text.count("\ufffd"):
        return str.__str__(repaired)
    offset = next(index for index, character in enumerate(text) if character == "\0" or character in _SURROGATES)
    what = "a NUL character" if text[offset] == "\0" else "a lone surrogate"
    return f"{repaired} {_note(f'{what} at offset {offset}, which PostgreSQL cannot store as text')}"


def _storable_value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _note(f"the number {value}, which JSON does not have")
    if isinstance(value, int):
        try:
            return int(str(int(value)))
        except ValueError:  # Python limits the number of digits that it converts
            return _note("an integer of more digits than can be read back")
    if not isinstance(value, dict | list | tuple):
        return _note(f"a {type(value).__name__}, which JSON cannot express")
    if depth > _MAX_DEPTH:
        return _note(f"values that are nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {storable_text(str(key)): _storable_value(item, depth + 1) for key, item in value.items()}
    return [_storable_value(item, depth + 1) for item in value]


def split_event(event: NewEvent, limit: int) -> list[NewEvent]:
    """Return events that together store an event whose content exceeds the limit, as far as possible.

    Args:
        limit: the largest size of an event's content as JSON, in bytes.
    """
    if _size(event.data.to_content()) <= limit:
        return [event]
    parts = [_shortened(data, limit) for data in _split(event.data, limit)]
    return [replace(event, data=data, id=event.id if number == 0 else uuid4()) for number, data in enumerate(parts)]


def _split(data: EventData, limit: int) -> list[EventData]:
    match data:
        case TaskArtifactAdded() | TaskArtifactExtended():
            return _split_artifact(data, limit)
        case TaskDescribed(history=list() as history):
            return _split_history(data.model_copy(update={"history": []}), data.task_id, history, limit)
        case TaskCreated(extra=dict() as extra) | TaskDescribed(extra=dict() as extra):
            if isinstance(messages := extra.get("history"), list):
                first = data.model_copy(update={"extra": extra | {"history": []}})
                return _split_history(first, data.task_id, messages, limit)
    return [data]


def _split_artifact(data: TaskArtifactAdded | TaskArtifactExtended, limit: int) -> list[EventData]:
    head = cast("TaskArtifactAdded", _shortened(data.model_copy(update={"parts": []}), limit // 2))
    available = limit - _size(head.to_content())
    (parts, _), *rest = _chunks(_split_parts(data.parts, available), available)
    events: list[EventData] = [head.model_copy(update={"parts": parts, "last_chunk": data.last_chunk and not rest})]
    for number, (parts, continues) in enumerate(rest, 1):
        events.append(
            TaskArtifactExtended(
                task_id=data.task_id, artifact_id=head.artifact_id, parts=parts,
                last_chunk=data.last_chunk and number == len(rest), continues_text=continues or None,
            )
        )  # fmt: skip
    return events


def _split_parts(parts: list[Any], available: int) -> Iterable[tuple[Any, bool]]:
    """Yield parts that fit, and whether each continues the text of the one before."""
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if _size(part) <= available or not isinstance(text, str) or _size(part | {"text": ""}) > available // 2:
            yield part, False
            continue
        step = max(1, available // 2 // _CHARACTER_BYTES)
        for start in range(0, len(text), step):
            yield part | {"text": text[start : start + step]}, start > 0


def _split_history(first: EventData, task_id: UUID, history: list[Any], limit: int) -> list[EventData]:
    available = limit - _size(TaskDescribed(task_id=task_id, history=[]).to_content())
    messages = (_shortened_object(each, available - 1) if isinstance(each, dict) else each for each in history)
    chunks = _chunks(((message, False) for message in messages), available)
    return [first, *(TaskDescribed(task_id=task_id, history=chunk) for chunk, _ in chunks)]


def _chunks(items: Iterable[tuple[Any, bool]], available: int) -> list[tuple[list[Any], bool]]:
    """Return lists of items that fit. An item that continues the one before begins a list, which is marked."""
    chunks: list[tuple[list[Any], bool]] = [([], False)]
    remaining = available
    for item, continues in items:
        size = _size(item) + 1
        if (size > remaining and chunks[-1][0]) or continues:
            chunks.append(([], continues))
            remaining = available
        chunks[-1][0].append(item)
        remaining -= size
    return chunks


def _shortened(data: EventData, limit: int) -> EventData:
    content = data.to_content()
    return data if _size(content) <= limit else type(data)(**_shortened_object(content, limit))


def _shortened_object(value: Json, limit: int) -> Json:
    """Return an object within the limit: its largest value is shortened or replaced, repeatedly."""
    while (size := _size(value)) > limit:
        value = _with_less(value, size - limit, "", limit)
    return value


def _with_less(value: Any, excess: int, name: str, limit: int) -> Any:
    """Return a smaller value, if possible by as much as the excess."""
    if isinstance(value, str):
        size = _size(value)
        available = max(size - excess - _NOTE_BYTES, min(size, limit) // 4)  # others may be shortened too
        kept = value[: len(value) * available // size]
        while _size(kept) > available and kept:  # its beginning has more bytes per character than all of it
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
    return [less if key == largest else each for key, each in enumerate(value)]


def _with_fewer(value: Any, sizes: dict[Any, int], excess: int, limit: int) -> Any:
    """Return a value of many small members without the last ones."""
    kept, freed = list(sizes), 0
    while kept and freed < excess + _NOTE_BYTES:
        last = kept.pop()
        freed += sizes[last] + 1 + (_size(last) + 1 if isinstance(value, dict) else 0)
    text = _note(f"{len(sizes) - len(kept):,} further values of {freed:,} bytes", limit)
    if isinstance(value, dict):
        return {key: value[key] for key in kept} | {NOTE: text}
    note = {"text": text} if all(isinstance(each, dict) for each in value) else text
    return [*(value[key] for key in kept), note]


def without_large_parts(message: Json, excess: int, limit: int) -> tuple[Json, list[str]]:
    """Return a message with notes in place of its largest parts other than texts, and the notes.

    Args:
        excess: the bytes by which the message is too large; as many parts are replaced as that takes.
    """
    name = next((name for name in ("parts", "content") if isinstance(message.get(name), list)), None)
    if name is None:
        return message, []
    parts, notes = list(message[name]), []
    sizes = {
        number: _size(part)
        for number, part in enumerate(parts)
        if isinstance(part, dict) and not isinstance(part.get("text"), str)
    }
    for number in sorted(sizes, key=lambda number: -sizes[number]):
        if excess <= 0 or sizes[number] <= _NOTE_BYTES:
            break
        parts[number] = _part_note(parts[number], sizes[number], limit)
        excess -= sizes[number] - _size(parts[number])
        notes.append(parts[number]["text"])
    return message | {name: parts}, notes


def _part_note(part: Any, size: int, limit: int) -> Json:
    note: Json = {}
    facts: Json = {}
    if isinstance(part, dict):
        note = {name: "text" for name in ("kind", "type") if name in part}
        file = part["file"] if isinstance(part.get("file"), dict) else part
        for names in (("mimeType", "mediaType"), ("name", "filename")):
            if name := next((each for each in names if isinstance(file.get(each), str)), None):
                facts[name] = printable(file[name]).encode()[:_NAME_BYTES].decode(errors="ignore")
        encoded = file.get("bytes", file.get("raw"))
        if isinstance(encoded, str):
            size = len(encoded) * 3 // 4 - encoded[-2:].count("=")
    what = f"a part ({', '.join(facts.values())})" if facts else "a part"
    metadata = {"metadata": {NOTE: facts | {"bytes": size}}}
    return note | {"text": _note(f"{what} of {size:,} bytes", limit)} | metadata


def _note(what: str, limit: int | None = None) -> str:
    if limit is not None:
        what += f", the limit of an event is {limit:,} bytes: raise EVENTSTORE_MAX_CONTENT_BYTES"
    return f"[not stored: {what}]"


def notes_in(events: Iterable[NewEvent]) -> list[str]:
    """Return the notes in events that :func:`split_event` has made."""
    return [note for event in events for note in _NOTES.findall(to_json(event.data.to_content(), "content").decode())]


def _size(value: Any) -> int:
    return len(to_json(value, "value"))
