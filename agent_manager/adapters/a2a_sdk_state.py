"""A task of a2a-sdk folded from its events, and what a save changes of it as events.

An event has only what a save changed. The last event of a save says, in its metadata, which stored messages were added
to the history. Every save is folded again before it is sent; a task, or an update, that would not read back equal is
stored whole beside its events.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any, cast
from uuid import UUID

from agent_manager.a2a import (
    FINAL,
    Json,
    add_chunk,
    apply_description,
    chunk_to_wire,
    parts_text,
    state_name,
    status_of,
    status_to_wire,
)
from agent_manager.adapters.a2a_sdk_values import Converted, in_stored_order, referred_files
from agent_manager.adapters.blobs import files_in, referring
from agent_manager.adapters.store_access import beginning
from agent_manager.agents.agent import ArtifactUpdate, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.recorder import DEFAULT_ACTOR, RecordedTask, Recording, artifact_key
from agent_manager.agents.storable import split_event
from agent_manager.conversation_fold import artifact_chunk
from eventstore import (
    ApplicationEvent,
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    Event,
    EventData,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
    Role,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDeleted,
    TaskDescribed,
    TaskStatusChanged,
    message_from_sent,
    sent_message,
)
from eventstore.errors import InvalidEvent

USER = "user"
_NOTE = "a2a"
"""The member of an event's metadata with what its save did to a task."""
_TASK, _MESSAGE, _EVENT = "a2a.task", "a2a.message", "a2a.event"
_DESCRIPTION_LENGTH = 255
_UNUSED_MESSAGES = 100
"""Messages of earlier statuses that may be kept in memory beside as many as the history has."""


@dataclass(frozen=True, slots=True)
class Home:
    """The place where a task is stored, and its owner."""

    conversation_id: UUID
    name: str
    context_id: str
    owner: str

    def content(self, task_id: str) -> Json:
        """Return the content of the event that records it."""
        return {"owner": self.owner, "task_id": task_id, "context_id": self.context_id, "conversation": self.name}


@dataclass
class TaskState:
    """A task after its events, up to a version of its conversation.

    Attributes:
        read_to: the version of the conversation up to which this is the state.
        version: the version of the last event of the task's last save.
        is_nameless: whether the event was erased that says which context the conversation is, and whose.
        is_hidden: whether the conversation is deleted.
        is_emptied: whether it was deleted with its last task, so that it can go on with another one.
        recorded: the task without id and history; None if it does not exist.
        whole: the task without its history, if that differs from what the other members give.
        history: the ids of the events with the messages of the history.
        messages: these messages, and that of the status, by the ids of their events.
        status_event: the id of the event of the status.
        converted: the value of a2a-sdk that was saved last, and its JSON, of the same objects as the task.
    """

    task_id: str
    home: Home
    id: UUID
    read_to: int = 0
    version: int = 0
    is_nameless: bool = False
    is_hidden: bool = False
    is_emptied: bool = False
    recorded: RecordedTask | None = None
    whole: Json | None = None
    history: list[str] = field(default_factory=list)
    messages: dict[str, Json] = field(default_factory=dict)
    status_event: str = ""
    converted: Converted | None = None

    @property
    def reactivated(self) -> TaskState:
        """The state after the conversation is reactivated."""
        return replace(self.copy(), is_hidden=False, is_emptied=False)

    @property
    def has_remains(self) -> bool:
        """True if nothing but remains is left of the task, because its saves were erased."""
        return self.recorded is not None and not self.version

    @property
    def without_remains(self) -> TaskState:
        """The state after what an erasure has left of the task is deleted."""
        return replace(self.copy(), recorded=None, whole=None, messages={}) if self.has_remains else self

    def copy(self) -> TaskState:
        """Return a copy that later events do not share."""
        state = copy(self)
        state.recorded = self.recorded and replace(self.recorded, artifacts=dict(self.recorded.artifacts))
        state.messages = dict(self.messages)
        return state

    @property
    def task(self) -> Json | None:
        """The task as JSON; None if it does not exist, was erased, or its conversation is deleted."""
        if self.recorded is None or self.is_hidden or not self.version:
            return None
        if self.whole is not None:
            task = self.whole
        else:
            recorded = self.recorded
            task = {"id": self.task_id, **(recorded.extra or {})}
            if recorded.status is not None:
                task["status"] = recorded.status
            if recorded.artifacts:
                task["artifacts"] = list(recorded.artifacts.values())
            if recorded.metadata is not None:
                task["metadata"] = recorded.metadata
        history = [message for message in map(self.messages.get, self.history) if message is not None]
        return task | {"history": history} if history else task

    @property
    def is_final(self) -> bool:
        """True if the task has ended."""
        status = self.recorded.status if self.recorded is not None else None
        return status is not None and status_of(status.get("state")) in FINAL

    def forget(self) -> None:
        """Forget the events that were applied, so that they are read again."""
        for name, value in vars(TaskState(self.task_id, self.home, self.id)).items():
            setattr(self, name, value)

    def concerns(self, event: Event) -> bool:
        """Return whether an event of the conversation changes the task."""
        is_about = isinstance(event.content, dict) and event.content.get("task_id") == str(self.id)
        return is_about or note_of(event.metadata).get("task") == str(self.id)

    def apply(self, version: int, event_id: UUID | str, data: EventData, metadata: Metadata) -> None:
        """Apply an event that concerns the task, or hides its conversation; ignore it if it was applied before."""
        if version <= self.read_to:
            return
        self.read_to, event_id = version, str(event_id)
        recorded = self.recorded or RecordedTask()
        match data:
            case ConversationCreated():
                self.is_nameless = False
                return
            case ConversationDeleted() | ConversationReactivated():
                self.is_hidden = isinstance(data, ConversationDeleted)
                self.is_emptied = self.is_hidden and note_of(metadata).get("emptied") is True
                return
            case MessageAdded():
                self.messages[event_id] = sent_message(data)
            case TaskDeleted():
                self.recorded, self.whole, self.history, self.messages, self.status_event = None, None, [], {}, ""
                return
            case TaskCreated():
                status: Json = {"state": state_name(data.status, "0.3")}
                self.recorded, self.whole = RecordedTask(status, data.extra, data.metadata), None
            case TaskDescribed():
                recorded.extra = apply_description(recorded.extra, data.extra, data.history)
                recorded.metadata = recorded.metadata if data.metadata is None else data.metadata
                self.recorded, self.whole = recorded, None
            case TaskStatusChanged():
                recorded.status = status_to_wire(data.status, data.message, data.extra)
                self.recorded, self.whole, self.status_event = recorded, None, event_id
                if data.message is not None:
                    self.messages[event_id] = data.message
            case TaskArtifactAdded() | TaskArtifactExtended():
                add_chunk(recorded.artifacts, artifact_chunk(data))
                self.recorded, self.whole = recorded, None
            case ApplicationEvent(event_type="a2a.task"):
                self._set_whole(data.content["task"])
            case ApplicationEvent(event_type="a2a.message"):
                self.messages[event_id] = data.content["message"]
        if (note := note_of(metadata)).get("saved"):
            self.version = version
            keep, add = note.get("history", (len(self.history), ()))
            self.history = [*self.history[:keep], *add]
            if len(self.messages) > 2 * len(self.history) + _UNUSED_MESSAGES:
                used = {*self.history, self.status_event}
                self.messages = {each: message for each, message in self.messages.items() if each in used}

    def _set_whole(self, task: Json) -> None:
        artifacts = {artifact_key(artifact): artifact for artifact in task.get("artifacts", [])}
        members = ("id", "status", "artifacts", "metadata")
        extra = {name: value for name, value in task.items() if name not in members}
        self.recorded = RecordedTask(task.get("status"), extra or None, task.get("metadata"), artifacts)
        self.whole = task


def emptied(actor: str) -> NewEvent:
    """Return the event that deletes a conversation with its last task."""
    return NewEvent(ConversationDeleted(), actor=actor, metadata=Metadata(**{_NOTE: {"emptied": True}}))


def note_of(metadata: Metadata) -> Json:
    """Return what the save of an event did to a task."""
    note = (metadata.model_extra or {}).get(_NOTE)
    return note if isinstance(note, dict) else {}


def conversation_begun(home: Home, actor: str) -> NewEvent:
    """Return the event that begins the conversation of tasks."""
    metadata = {_NOTE: {"owner": home.owner, "context_id": home.context_id}}
    return replace(beginning(home.conversation_id, home.name, metadata), actor=actor)


# A save as events, and the events of a save as the update that it published


def events_of_save(
    store: EventStore, state: TaskState, task: Json, update: Json | None, kind: str | None, *, is_needed: bool
) -> list[NewEvent]:
    """Return the events that turn a state into a task, and from which the update can be read; none if nothing changed.

    Args:
        is_needed: whether there must be an event, even if nothing changed.
    """
    known = state.task
    if known == task and not is_needed:
        return []
    messages, history = _history_change(state, task.get("history", []))
    rest = {name: value for name, value in task.items() if name != "history" or not value}
    note = {"task": str(state.id), "saved": True} | ({} if history is None else {"history": history})
    if kind is not None:
        note["event"] = kind
    if update is None and known is not None and messages and _has_only_new_messages(state, known, task, messages):
        return _with_note(messages, note)
    before = state.copy()
    recording = Recording(
        store.tenant, state.home.conversation_id, description=_description(task),
        known_task=lambda _: before.copy().recorded,
    )  # fmt: skip
    updates: list[Update] = [TaskSnapshot(rest)]
    if update is not None and kind in _UPDATES and before.recorded is not None and update.get("taskId") == task["id"]:
        updates.insert(0, _update(kind, update))
    limit = store.settings.max_content_bytes
    changes = [piece for each in updates for event in recording.events_of(each) for piece in split_event(event, limit)]
    events = [*messages, *changes]
    after = _after(before, events, note)
    if after.task != task:
        events = [*messages, NewEvent(ApplicationEvent(_TASK, {"task_id": str(state.id), "task": rest}))]
        after = _after(before, events, note)
    if update is not None and published(after, kind, events) != update:
        note["event"] = "whole"
        events.append(NewEvent(ApplicationEvent(_EVENT, {"task_id": str(state.id), "event": update, "kind": kind})))
    return _with_note(events or [NewEvent(TaskDescribed(task_id=state.id))], note)


def _has_only_new_messages(state: TaskState, known: Json, task: Json, messages: Sequence[NewEvent]) -> bool:
    """Return whether a task differs from the known one in messages at the end of its history, which read back equal."""
    history, new = known.get("history", []), [event.data for event in messages]
    return (
        known | {"history": task["history"]} == task
        and len(task["history"]) == len(history) + len(new)
        and all(isinstance(data, MessageAdded) for data in new)
        and [*history, *map(sent_message, cast("list[MessageAdded]", new))] == task["history"]
    )


def _with_note(events: Sequence[NewEvent], note: Json) -> list[NewEvent]:
    """Return the events of a save, the last of which has the note, with the files that they refer to."""
    events = [*events[:-1], replace(events[-1], metadata=Metadata(**{_NOTE: in_stored_order(note)}))]
    return [
        replace(event, actor=event.actor or DEFAULT_ACTOR, metadata=referring(event.metadata, _files(event.data)))
        for event in events
    ]


def _files(data: EventData) -> set[bytes]:
    """Return the hashes of the files that an event refers to."""
    match data:
        case MessageAdded() | TaskArtifactAdded() | TaskArtifactExtended():
            return files_in(data.parts or ())
        case TaskStatusChanged() if data.message is not None:
            return referred_files(data.message)
        case ApplicationEvent():
            return referred_files(
                next(data.content[name] for name in ("task", "message", "event") if name in data.content)
            )
    return set()


def _after(before: TaskState, events: Sequence[NewEvent], note: Json) -> TaskState:
    state = before.copy()
    for version, event in enumerate(events, state.read_to + 1):
        state.apply(version, event.id, event.data, event.metadata)
    state.apply(state.read_to + 1, "", ApplicationEvent("a2a.saved"), Metadata(**{_NOTE: note}))
    return state


def _history_change(state: TaskState, history: list[Json]) -> tuple[list[NewEvent], list[Any] | None]:
    """Return the events of new messages of a history, and how many messages it keeps, with the ids of all others."""
    known = [*map(state.messages.get, state.history)]  # None for one that was erased
    keep = [*map(is_, known, history), False].index(False)  # most are the same objects, which are fast to compare
    while keep < min(len(known), len(history)) and known[keep] == history[keep]:
        keep += 1
    if keep == len(known) == len(history):
        return [], None
    candidates = dict.fromkeys([*state.history[keep:], state.status_event])
    added: list[str] = []
    events: list[NewEvent] = []
    for message in history[keep:]:
        event_id = next((each for each in candidates if state.messages.get(each) == message), None)
        if event_id is None:
            event = _message_event(state, message)
            events.append(event)
            event_id = str(event.id)
        else:
            candidates.pop(event_id)
        added.append(event_id)
    return events, [keep, added]


def _message_event(state: TaskState, message: Json) -> NewEvent:
    note = Metadata(**{_NOTE: {"task": str(state.id)}})
    try:
        data = message_from_sent(message, given_id=message.get("messageId"))
    except InvalidEvent:  # it has no role
        return NewEvent(ApplicationEvent(_MESSAGE, {"task_id": str(state.id), "message": message}), metadata=note)
    data = data.model_copy(update={"sent_order": None, "extra": in_stored_order(data.extra)})
    is_users = data.role is Role.USER
    return NewEvent(data, actor=(state.home.owner or USER) if is_users else DEFAULT_ACTOR, metadata=note)


def _description(task: Json) -> str:
    """Return the first line of the message that began a task."""
    history = task.get("history") or [{}]
    return "".join(parts_text(history[0].get("parts")).strip().splitlines()[:1])[:_DESCRIPTION_LENGTH]


_UPDATES = ("status", "artifact")


def _update(kind: str | None, update: Json) -> Update:
    task_id, context_id, metadata = update.get("taskId", ""), update.get("contextId"), update.get("metadata")
    if kind == "status":
        return StatusUpdate(task_id, context_id, update.get("status", {}), metadata=metadata)
    return ArtifactUpdate(
        task_id, context_id, update.get("artifact", {}), append=update.get("append") is True,
        last_chunk=update.get("lastChunk"), metadata=metadata,
    )  # fmt: skip


def published(state: TaskState, kind: str | None, events: Sequence[NewEvent | Event]) -> Json | None:
    """Return the update that the events of a save published, given the state after them."""
    if kind == "task":
        return state.task
    for event in events:
        match event.data:
            case TaskStatusChanged() as data if kind == "status":
                update = {"taskId": state.task_id, **(data.update or {})}
                update["status"] = status_to_wire(data.status, data.message, data.extra)
                return update | ({"metadata": data.metadata} if data.metadata is not None else {})
            case TaskArtifactAdded() | TaskArtifactExtended() as data if kind == "artifact":
                members = data.update or {}
                artifact = chunk_to_wire(artifact_chunk(data))
                if not members.get("append") and state.recorded is not None:
                    artifact = state.recorded.artifacts[data.artifact_id]
                return {"taskId": state.task_id, **members, "artifact": artifact}
    return None
