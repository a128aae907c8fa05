"""a2a-sdk's stores of an agent's server: tasks, versioned tasks, event streams across replicas, push notifications.

Tested with a2a-sdk 1.3 and 0.3; 0.3 has no versioned tasks and no event streams.

The tasks of an A2A context are in one conversation, with the vocabulary of the manager: an event has only what a save
changed. The messages of a task's history are messages of the conversation. A message that moved there from the task's
status is already stored with that status, so the history has references: the last event of each save says, in its
metadata, which stored messages were added. Every save is folded again before it is sent; a task, or an update, that
would not read back equal is stored whole beside its events.

A task's id does not tell its conversation. The first save of a task also appends a record of it to a conversation whose
id follows from the task's: of two first writers, only one can begin that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast
from urllib.parse import quote
from uuid import UUID
from weakref import WeakValueDictionary

from a2a.server.tasks.push_notification_config_store import PushNotificationConfigStore
from a2a.server.tasks.task_store import TaskStore
from cachetools import LRUCache
from cryptography.fernet import Fernet, InvalidToken
from pydantic import BaseModel

from agent_manager.a2a import (
    FINAL,
    RESERVED,
    Json,
    add_chunk,
    apply_description,
    chunk_to_wire,
    parts_text,
    state_name,
    status_of,
    status_to_wire,
    without_secrets,
)
from agent_manager.agents.agent import ArtifactUpdate, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.recorder import DEFAULT_ACTOR, RecordedTask, Recording, artifact_key, split_event, task_uuid
from agent_manager.conversation_fold import artifact_chunk
from eventstore import (
    EXISTS,
    NO_STREAM,
    Append,
    ApplicationEvent,
    Caller,
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
    TaskDescribed,
    TaskStatusChanged,
    conversation_uuid,
    message_from_sent,
    sent_message,
)
from eventstore.database.queries import query, query_without
from eventstore.errors import Forbidden, InputError, InvalidEvent, WrongExpectedVersion, printable
from eventstore.event_types import RECEIPTS
from eventstore.ids import is_canonical_uuid
from eventstore.json_text import from_json, to_json
from eventstore.read import RawRows, end_of_log
from projections.read_your_writes import fetch_at_least

try:
    from a2a.types import a2a_pb2 as types
    from google.protobuf.json_format import MessageToDict, ParseDict
except ImportError:  # 0.3
    from a2a import types  # type: ignore[no-redef]

try:
    from a2a.server.cluster import (
        ConcurrentTaskModificationError,
        StoredTask,
        TaskEventStream,
        TaskVersion,
        VersionedEvent,
        VersionedTaskStore,
    )
except ImportError:  # before 1.3
    _CLUSTER = False
else:
    _CLUSTER = True

_OF_TASK = "TaskPushNotificationConfig"
_CONFIG_TYPE = _OF_TASK if hasattr(types, "DESCRIPTOR") else "PushNotificationConfig"

_logger = logging.getLogger(__name__)

OwnerResolver: TypeAlias = Callable[[Any], str]
"""A function that returns the name of the user of a call's context; an empty text if nobody is authenticated."""

RECORDS = RESERVED + "a2a-sdk:"
"""Prefix of the conversations, one for each task, that record where tasks are. The read tables do not have them."""
DELETED = "eventstore:deleted"
"""The member of a task that was deleted from the store."""

_NOTE = "a2a"
_TASK, _MESSAGE, _EVENT, _HOME, _CONFIG = (
    "a2a.task", "a2a.message", "a2a.event", "a2a.home", "a2a.push_notification",
)  # fmt: skip
USER = "user"
_DESCRIPTION_LENGTH = 255
_UNUSED_MESSAGES = 100
"""Messages of earlier statuses that may be kept in memory beside as many as the history has."""
_PAGE = 500
"""Events of a task in one statement."""
_KEPT_TASKS = 500
"""Tasks whose state is kept: a task takes one statement to read, so this only has to cover those that are active."""
_LIST_SECONDS = 10.0
"""How long a list waits for the read tables."""


def user_name(context: Any) -> str:
    """Return the name of the user of a call; an empty text if nobody is authenticated."""
    return "" if context is None else str(context.user.user_name)


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a task is stored, and whose it is."""

    conversation_id: UUID
    name: str
    context_id: str
    owner: str

    def content(self, task_id: str) -> Json:
        """Return the content of the event that records it."""
        return {"task_id": task_id, "conversation": self.name, "context_id": self.context_id, "owner": self.owner}


@dataclass
class _State:
    """A task after its events, up to a version of its conversation.

    Attributes:
        read_to: the version of the conversation up to which this is the state.
        version: the version of the last event of the task's last save.
        recorded: the task without id and history; None if it does not exist.
        whole: the task without its history, if that differs from what the other members give.
        history: the ids of the events with the messages of the history.
        messages: these messages, and that of the status, by the ids of their events.
        status_event: the id of the event of the status.
        converted: the value of a2a-sdk that was saved last, and its JSON.
    """

    task_id: str
    home: _Home
    id: UUID
    read_to: int = 0
    version: int = 0
    is_hidden: bool = False
    recorded: RecordedTask | None = None
    whole: Json | None = None
    history: list[str] = field(default_factory=list)
    messages: dict[str, Json] = field(default_factory=dict)
    status_event: str = ""
    converted: tuple[Any, Json] | None = None

    def copy(self) -> _State:
        """Return a copy that later events do not share."""
        recorded = self.recorded and replace(self.recorded, artifacts=dict(self.recorded.artifacts))
        return replace(self, recorded=recorded, messages=dict(self.messages))

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
        history = [self.messages[event_id] for event_id in self.history if event_id in self.messages]
        return task | {"history": history} if history else task

    @property
    def is_final(self) -> bool:
        """True if the task has ended."""
        status = self.recorded.status if self.recorded is not None else None
        return status is not None and status_of(status.get("state")) in FINAL

    def forget(self) -> None:
        """Forget the events that were applied, so that they are read again."""
        for name, value in vars(_State(self.task_id, self.home, self.id)).items():
            setattr(self, name, value)

    def concerns(self, event: Event) -> bool:
        """Return whether an event of the conversation changes the task."""
        is_about = isinstance(event.content, dict) and event.content.get("task_id") == str(self.id)
        return is_about or _note_of(event.metadata).get("task") == str(self.id)

    def apply(self, version: int, event_id: UUID | str, data: EventData, metadata: Metadata) -> None:
        """Apply an event that concerns the task, or hides its conversation; ignore it if it was applied before."""
        if version <= self.read_to:
            return
        self.read_to, event_id = version, str(event_id)
        recorded = self.recorded or RecordedTask()
        match data:
            case ConversationDeleted() | ConversationReactivated():
                self.is_hidden = isinstance(data, ConversationDeleted)
                return
            case MessageAdded():
                self.messages[event_id] = sent_message(data)
            case TaskDescribed(extra={"eventstore:deleted": True}):
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
        if (note := _note_of(metadata)).get("saved"):
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


def _note_of(metadata: Metadata) -> Json:
    note = (metadata.model_extra or {}).get(_NOTE)
    return note if isinstance(note, dict) else {}


Check: TypeAlias = Callable[[_State | None], None]
"""A function that raises an error if a task may not be saved over the state that it receives."""


class _Tasks:
    """The tasks of one store's tenant, with the state of those that were used last."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.log = store.log(Caller(store.tenant))
        self._kept: LRUCache[str, _State] = LRUCache(_KEPT_TASKS)
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def find(self, task_id: str, owner: str) -> _State | None:
        """Return the present state of a task; None if there is no record of it, or it is another owner's."""
        state = await self.known(task_id)
        if state is None or state.home.owner != owner:
            return None
        await self.refresh([state])
        return state

    async def known(self, task_id: str) -> _State | None:
        """Return the state of a task as it is kept; None if there is no record of the task."""
        if (state := self._kept.get(task_id)) is not None:
            return state
        home = await self.home(task_id)
        return None if home is None else self._keep(self.unread(task_id, home))

    def unread(self, task_id: str, home: _Home) -> _State:
        """Return the state of a task before its first event."""
        return _State(task_id, home, task_uuid(self.store.tenant, home.conversation_id, task_id))

    def _keep(self, state: _State) -> _State:
        kept: _State = self._kept.setdefault(state.task_id, state)
        return kept

    async def refresh(self, states: Sequence[_State]) -> None:
        """Apply the events that follow to the states."""
        behind = list(states)
        begun = {id(state) for state in behind if state.read_to}
        while behind:
            given = {
                "tenant": self.store.tenant,
                "conversations": [state.home.conversation_id for state in behind],
                "tasks": [str(state.id) for state in behind],
                "versions": [state.read_to for state in behind],
                "limit": _PAGE,
            }
            counts, latest = [0] * len(behind), [0] * len(behind)
            outdated: dict[int, _State] = {}
            for number, version, *row in await self.log.fetch(_TASK_EVENTS, given, cursor=RawRows):
                latest[number - 1] = version
                if row[0] is not None:
                    counts[number - 1] += 1
                    event, state = Event.from_row(row), behind[number - 1]
                    if event.event_type in RECEIPTS and id(state) in begun:
                        outdated[id(state)] = state
                    state.apply(event.version, event.id, event.data, event.metadata)
            for state in outdated.values():  # they hold what was erased
                begun.discard(id(state))
                state.forget()
            for state, count, version in zip(behind, counts, latest, strict=True):
                if count < _PAGE and id(state) not in outdated:
                    state.read_to = max(state.read_to, version)
            behind = [
                state for state, count in zip(behind, counts, strict=True) if count == _PAGE or id(state) in outdated
            ]

    async def save(
        self, value: Any, owner: str, *, update: Json | None = None, kind: str | None = None,
        check: Check | None = None, may_create: bool = True,
    ) -> int:  # fmt: skip
        """Store what changed of a task, and return the version of its last save.

        Args:
            value: the task, as a2a-sdk has it.
            update: the update that changed it, for the streams of the task.
            kind: the kind of the update: ``task``, ``status`` or ``artifact``.
            check: makes sure that something is stored, and that it is stored only over a certain state.
            may_create: whether the task may be new.
        """
        task_id: str = value.id
        state = self._kept.get(task_id)
        converted = _converted(value, None if state is None else state.converted)
        task, is_recorded, records_version = converted[1], True, 0
        if state is None and not may_create:
            state = await self.find(task_id, owner)
        elif state is None:
            is_recorded, state = False, self.unread(task_id, self._new_home(task, owner))
        if state is None or state.home.owner != owner:
            if check is not None:
                check(None)
            raise _of_another_user(task_id)
        state.converted = converted
        conversation_id, records_id = state.home.conversation_id, self.records_id(task_id)
        user, actor = owner or None, owner or USER
        async with self._locks.setdefault(conversation_id, asyncio.Lock()):
            while True:
                if check is not None:
                    await self._check(state, check)
                events = _events_of_save(self.store, state, task, update, kind, is_needed=check is not None)
                if not events:
                    return state.version
                begin = [] if state.read_to else [NewEvent(_beginning(state.home), actor=actor)]
                appends = [Append(conversation_id, [*begin, *events], state.read_to or NO_STREAM)]
                if not is_recorded:
                    record = NewEvent(ApplicationEvent(_HOME, state.home.content(task_id)), actor=actor)
                    appends.append(Append(records_id, [record], records_version or NO_STREAM))
                try:
                    result = await self.store.append_all(appends, user=user)
                except Forbidden:
                    raise _of_another_user(task_id) from None
                except WrongExpectedVersion as error:
                    if error.conversation_id != records_id:
                        await self.refresh([state])
                        continue
                    records_version = error.actual
                    if await self.known(task_id) is not None:
                        break  # another writer has begun the task, perhaps in another conversation
                else:
                    places = result.events[len(begin) :][: len(events)]
                    for event, place in zip(events, places, strict=True):
                        state.apply(place.version, event.id, event.data, event.metadata)
                    if state.is_final:
                        state.converted = None
                    self._keep(state)
                    return state.version
        return await self.save(value, owner, update=update, kind=kind, check=check, may_create=may_create)

    async def _check(self, state: _State, check: Check) -> None:
        try:
            check(state)
        except Exception:  # the state that is kept may be an earlier one than the caller has read elsewhere
            await self.refresh([state])
            check(state)

    async def delete(self, task_id: str, owner: str) -> None:
        """Delete a task from the store, if it exists."""
        while (state := await self.find(task_id, owner)) is not None and state.task is not None:
            gone = NewEvent(TaskDescribed(task_id=state.id, extra={DELETED: True}), actor=owner or USER)
            try:
                await self.store.append(state.home.conversation_id, [gone], expected=state.read_to, user=owner or None)
            except WrongExpectedVersion:
                continue
            return

    def records_id(self, task_id: str) -> UUID:
        """Return the id of the conversation that records where a task is, and its settings of push notifications."""
        return conversation_uuid(self.store.tenant, RECORDS + task_id)

    def _new_home(self, task: Json, owner: str) -> _Home:
        context_id = task.get("contextId", "")
        name = context_id or task["id"]
        name = f"{quote(owner, safe='')}/{name}" if owner else name
        return _Home(conversation_uuid(self.store.tenant, name), name, context_id, owner)

    async def home(self, task_id: str) -> _Home | None:
        """Return where a task is stored; None if there is no record of it."""
        async for event in self.store.read(self.records_id(task_id), types=[_HOME], limit=1):
            content = event.content
            name = content["conversation"]
            return _Home(conversation_uuid(self.store.tenant, name), name, content["context_id"], content["owner"])
        return None


def _of_another_user(task_id: str) -> InputError:
    return InputError(f"task {printable(task_id)!r} belongs to another user: choose another id")


_TASK_EVENTS = query("agent_manager.adapters", "a2a_task_events")


def _beginning(home: _Home) -> ConversationCreated:
    given_id = None if is_canonical_uuid(home.name) else home.name
    return ConversationCreated(
        given_id=given_id, metadata={_NOTE: {"context_id": home.context_id, "owner": home.owner}}
    )


# A save as events, and the events of a save as the update that it published


def _events_of_save(
    store: EventStore, state: _State, task: Json, update: Json | None, kind: str | None, *, is_needed: bool
) -> list[NewEvent]:
    """Return the events that turn a state into a task, and from which the update can be read; none if nothing changed.

    Args:
        is_needed: whether there must be an event, even if nothing changed.
    """
    if state.task == task and not is_needed:
        return []
    before = state.copy()
    messages, history = _history_change(before, task.get("history", []))
    rest = {name: value for name, value in task.items() if name != "history" or not value}
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
    note = {"task": str(state.id), "saved": True} | ({} if history is None else {"history": history})
    if kind is not None:
        note["event"] = kind
    after = _after(before, events, note)
    if after.task != task:
        events = [*messages, NewEvent(ApplicationEvent(_TASK, {"task_id": str(state.id), "task": rest}))]
        after = _after(before, events, note)
    if update is not None and _published(after, kind, events) != update:
        note["event"] = "whole"
        events.append(NewEvent(ApplicationEvent(_EVENT, {"task_id": str(state.id), "event": update, "kind": kind})))
    if not events:
        events = [NewEvent(TaskDescribed(task_id=state.id))]
    last = events[-1]
    events[-1] = replace(last, metadata=Metadata(**{_NOTE: note}))
    return [replace(event, actor=event.actor or DEFAULT_ACTOR) for event in events]


def _after(before: _State, events: Sequence[NewEvent], note: Json) -> _State:
    state = before.copy()
    for version, event in enumerate(events, state.read_to + 1):
        state.apply(version, event.id, event.data, event.metadata)
    state.apply(state.read_to + 1, "", ApplicationEvent("a2a.saved"), Metadata(**{_NOTE: note}))
    return state


def _history_change(state: _State, history: list[Json]) -> tuple[list[NewEvent], list[Any] | None]:
    """Return the events of new messages of a history, and how many messages it keeps, with the ids of all others."""
    known = [state.messages[event_id] for event_id in state.history]
    keep = next(
        (number for number, (old, new) in enumerate(zip(known, history, strict=False)) if old != new),
        min(len(known), len(history)),
    )
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


def _message_event(state: _State, message: Json) -> NewEvent:
    note = Metadata(**{_NOTE: {"task": str(state.id)}})
    try:
        data = message_from_sent(message, given_id=message.get("messageId"))
    except InvalidEvent:  # it has no role
        return NewEvent(ApplicationEvent(_MESSAGE, {"task_id": str(state.id), "message": message}), metadata=note)
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


def _published(state: _State, kind: str | None, events: Sequence[NewEvent | Event]) -> Json | None:
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


# Values of a2a-sdk as JSON: protobuf in 1.x, pydantic in 0.3


def _to_json(value: Any) -> Json:
    if not isinstance(value, BaseModel):
        converted: Json = MessageToDict(value)
        return converted
    json = value.model_dump(mode="json", by_alias=True, exclude_none=True)
    is_whole = type(value).model_validate(json) == value  # there may be a null inside of the metadata
    return json if is_whole else value.model_dump(mode="json", by_alias=True)


def _converted(task: Any, before: tuple[Any, Json] | None) -> tuple[Any, Json]:
    """Return a copy of a task, and its JSON: of messages of the history that were converted before, the same JSON."""
    if isinstance(task, BaseModel):
        return task, _to_json(task)
    copy = types.Task()
    copy.CopyFrom(task)
    if before is None:
        return copy, _to_json(copy)
    pairs = enumerate(zip(before[0].history, task.history, strict=False))
    same = next((number for number, (old, new) in pairs if old != new), min(len(before[0].history), len(task.history)))
    rest = types.Task()
    rest.CopyFrom(task)
    del rest.history[:same]
    json = _to_json(rest)
    history = [*before[1].get("history", [])[:same], *json.get("history", [])]
    return copy, json | ({"history": history} if history else {})


def _from_json(json: Json, kind: Any) -> Any:
    return kind.model_validate(json) if issubclass(kind, BaseModel) else ParseDict(json, kind())


class EventStoreTaskStore(TaskStore):
    """A2A tasks in an event store.

    Args:
        store: an open store; the caller closes it.
        owner_resolver: returns the user of a call. Tasks of another user do not exist for it.
    """

    def __init__(self, store: EventStore, owner_resolver: OwnerResolver = user_name) -> None:
        self._tasks = _Tasks(store)
        self._owner = owner_resolver

    async def save(self, task: Any, context: Any = None) -> None:
        """Store what changed of a task."""
        await self._tasks.save(task, self._owner(context))

    async def get(self, task_id: str, context: Any = None) -> Any:
        """Return a task; None if it does not exist."""
        state = await self._tasks.find(task_id, self._owner(context))
        task = None if state is None else state.task
        return None if task is None else _from_json(task, types.Task)

    async def list(self, params: Any, context: Any = None) -> Any:
        """Return a page of the tasks of the call's user, latest status first.

        It contains everything that was stored before, so it waits for the worker of the read tables.

        Raises:
            NotCaughtUp: the read tables are behind, or there is no worker.
            InvalidParamsError: the page token is not valid.
        """
        return await _list(self._tasks, params, self._owner(context))

    async def delete(self, task_id: str, context: Any = None) -> None:
        """Delete a task from the store. Its events remain in the log."""
        await self._tasks.delete(task_id, self._owner(context))


async def _list(tasks: _Tasks, params: Any, owner: str) -> Any:
    from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
    from a2a.utils.task import ListTasksCursor, encode_list_tasks_cursor

    store, size = tasks.store, params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
    given: dict[str, Any] = {"tenant": store.tenant, "owner": owner, "limit": size + 1}
    conditions: dict[str, Any] = {
        "context_id": params.context_id or None,
        "status": str(status_of(params.status)) if params.status else None,
        "since": _time_text(params.status_timestamp_after) if params.HasField("status_timestamp_after") else None,
        **await _after_token(tasks, owner, params.page_token),
    }
    wanted = {name: value for name, value in conditions.items() if value is not None}
    text = query_without("agent_manager.adapters", "a2a_tasks", frozenset(conditions.keys() - wanted.keys()))
    caller, at_least = Caller(store.tenant, owner or None), await end_of_log(tasks.log)
    names = ("conversations", "tasks")
    rows, _ = await fetch_at_least(store, caller, text, given | wanted, names, at_least, _LIST_SECONDS)
    page = [row for row in rows if row[1] is not None]
    states = [await tasks.known(task_id) for _, task_id, _ in page[:size]]
    known = [state for state in states if state is not None and state.home.owner == owner]
    await tasks.refresh(known)
    response = types.ListTasksResponse(
        tasks=[_from_json(state.task, types.Task) for state in known if state.task is not None],
        total_size=rows[0][0],
        page_size=size,
    )
    if len(page) > size:
        _, task_id, time = page[size - 1]
        time_ns = None if time is None else _time_of(time).ToNanoseconds()
        response.next_page_token = encode_list_tasks_cursor(ListTasksCursor(time_ns, task_id))
    return response


async def _after_token(tasks: _Tasks, owner: str, token: str) -> dict[str, Any]:
    """Return the conditions of the page that a token begins; a token may also be a task's id, as before a2a-sdk 1.3."""
    from a2a.utils.errors import InvalidParamsError
    from a2a.utils.task import decode_list_tasks_cursor, decode_page_token
    from google.protobuf.timestamp_pb2 import Timestamp

    names = ("before_untimed_id", "before_time", "before_id")
    if not token:
        return dict.fromkeys(names)
    cursor, suffix = decode_list_tasks_cursor(token), ""
    if cursor is not None:
        task_id, time = cursor.task_id, None
        if cursor.timestamp_ns is not None:
            timestamp = Timestamp()
            try:
                timestamp.FromNanoseconds(cursor.timestamp_ns)
                time = _time_text(timestamp)
            except (ValueError, OverflowError):
                raise InvalidParamsError("Invalid page token") from None
    else:
        task_id, suffix = decode_page_token(token), "\x01"  # the page begins with this task
        state = await tasks.find(task_id, owner) if "\0" not in task_id else None
        if state is None or state.task is None:
            raise InvalidParamsError(f"Invalid page token: {token}")
        time = (state.task.get("status", {}).get("timestamp") or "").removesuffix("Z") or None
    if time is None:
        return dict(zip(names, (task_id + suffix, None, None), strict=True))
    return dict(zip(names, (None, time, task_id + suffix), strict=True))


def _time_text(timestamp: Any) -> str:
    return str(timestamp.ToJsonString()).removesuffix("Z")


def _time_of(text: str) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    timestamp = Timestamp()
    timestamp.FromJsonString(text + "Z")
    return timestamp


def _number(version: Any) -> int:
    number = version._value
    if not isinstance(number, int):
        raise TypeError(f"versions of an event store are integer versions, not {type(number).__name__}")
    return number


def _kind_of(event: Any) -> str:
    names = {"Task": "task", "TaskStatusUpdateEvent": "status", "TaskArtifactUpdateEvent": "artifact"}
    return names.get(type(event).__name__, "message")


async def _events_of_conversation(store: EventStore, conversation_id: UUID) -> AsyncGenerator[Event, None]:
    """Yield the events of a conversation, and all future ones."""
    horizon, version = await end_of_log(store.log(Caller(store.tenant))), 0
    async with aclosing(cast("AsyncGenerator[Event, None]", store.read(conversation_id))) as events:
        async for event in events:
            yield event
            version = event.version
    async with aclosing(cast("AsyncGenerator[Event, None]", store.subscribe(after=horizon))) as events:
        async for event in events:
            if event.conversation_id == conversation_id and event.version > version:
                yield event


def _stored_update(state: _State, kind: str | None, events: Sequence[Event]) -> Any:
    if kind is None:
        return None
    update = _published(state, kind, events)
    if kind == "whole":
        content = events[-1].content
        kind, update = content["kind"], content["event"]
    classes = {"task": "Task", "status": "TaskStatusUpdateEvent", "artifact": "TaskArtifactUpdateEvent"}
    return _from_json(update or {}, getattr(types, classes.get(str(kind), "Message")))


if _CLUSTER:

    class EventStoreVersionedTaskStore(VersionedTaskStore):
        """A2A tasks in an event store for several replicas of an agent: a save names the version that it is based on.

        A version is that of the task's conversation. See :class:`EventStoreTaskStore`.
        """

        def __init__(self, store: EventStore, owner_resolver: OwnerResolver = user_name) -> None:
            self._store = EventStoreTaskStore(store, owner_resolver)
            self._tasks = self._store._tasks
            self._owner = owner_resolver

        @property
        def as_task_store(self) -> EventStoreTaskStore:
            """The same tasks without versions."""
            return self._store

        async def save(self, task: Any, *, event: Any = None, prev: Any = None, prev_version: Any, context: Any) -> Any:
            """Store what changed of a task, and the event that changed it for the streams of the task.

            Raises:
                ConcurrentTaskModificationError: the stored task has another version than ``prev_version``, or is to be
                    canceled and has ended.
            """
            expected, is_canceled = _number(prev_version), task.status.state == types.TaskState.TASK_STATE_CANCELED

            def check(state: _State | None) -> None:
                stored = 0 if state is None or state.task is None else state.version
                is_stale = not stored or (state is not None and state.is_final) if is_canceled else stored != expected
                if is_stale:
                    raise ConcurrentTaskModificationError(task.id)

            version = await self._tasks.save(
                task,
                self._owner(context),
                update=None if event is None else _to_json(event),
                kind=None if event is None else _kind_of(event),
                check=check,
                may_create=not expected and not is_canceled,
            )
            return TaskVersion(version)

        async def get(self, task_id: str, context: Any) -> Any:
            """Return a task with its version; None if it does not exist."""
            state = await self._tasks.find(task_id, self._owner(context))
            task = None if state is None else state.task
            if state is None or task is None:
                return None
            return StoredTask(_from_json(task, types.Task), TaskVersion(state.version))

        async def list(self, params: Any, context: Any) -> Any:
            """Return a page of tasks; see :meth:`EventStoreTaskStore.list`."""
            return await self._store.list(params, context)

        async def delete(self, task_id: str, context: Any) -> None:
            """Delete a task from the store. Its events remain in the log."""
            await self._tasks.delete(task_id, self._owner(context))

    class EventStoreTaskEventStream(TaskEventStream):
        """The updates of A2A tasks that any replica has saved in an event store, without polling.

        They are stored by :class:`EventStoreVersionedTaskStore`, in the same append as the task.
        """

        def __init__(self, store: EventStore) -> None:
            self._tasks = _Tasks(store)

        async def publish(self, task_id: str, event: Any) -> None:
            """Do nothing: an update is published by the save that stores it."""

        async def subscribe(self, task_id: str, *, after: Any) -> AsyncGenerator[Any, None]:
            """Yield the updates of a task that follow a version, and all future ones, each once."""
            tasks, seen = self._tasks, 0 if after.is_missing else _number(after)
            store = tasks.store
            home = None
            while home is None:
                horizon = await end_of_log(tasks.log)
                if (home := await tasks.home(task_id)) is None:
                    await store.wait(horizon)
            state, pending = tasks.unread(task_id, home), []
            async with aclosing(_events_of_conversation(store, home.conversation_id)) as events:
                async for event in events:
                    if not state.concerns(event):
                        continue
                    pending.append(event)
                    state.apply(event.version, event.id, event.data, event.metadata)
                    if not (note := _note_of(event.metadata)).get("saved"):
                        continue
                    saved, pending = pending, []
                    if event.version > seen and (update := _stored_update(state, note.get("event"), saved)) is not None:
                        yield VersionedEvent(event=update, version=TaskVersion(event.version))

        async def destroy(self, task_id: str) -> None:
            """Do nothing: the log keeps the updates."""


class EventStorePushNotificationConfigStore(PushNotificationConfigStore):
    """The settings of push notifications of A2A tasks in an event store.

    Args:
        store: an open store; the caller closes it.
        encryption_key: a Fernet key, with which settings are encrypted. The log keeps what it contains for good, so a
            setting that has a token or credentials is refused without a key.
        owner_resolver: returns the user of a call.
    """

    def __init__(
        self, store: EventStore, encryption_key: str | bytes | None = None, owner_resolver: OwnerResolver = user_name
    ) -> None:
        self._tasks = _Tasks(store)
        self._owner = owner_resolver
        self._fernet = None if encryption_key is None else Fernet(encryption_key)

    async def set_info(self, task_id: str, notification_config: Any, context: Any = None) -> Any:
        """Store a setting, which replaces one with the same id, and return it with its ids.

        Raises:
            InputError: it has a token or credentials, and the store has no encryption key.
        """
        config = _to_json(notification_config)
        config |= {"id": config.get("id") or task_id} | ({"taskId": task_id} if _CONFIG_TYPE == _OF_TASK else {})
        shown = without_secrets(config)
        content: Json = {"config": shown}
        if self._fernet is not None:
            content["sealed"] = self._fernet.encrypt(to_json(config, "config")).decode()
        elif shown != config:
            raise InputError(
                f"the push notifications of task {printable(task_id)!r} have a token or credentials, and the log would "
                "keep them for good: give EventStorePushNotificationConfigStore an encryption_key"
            )
        await self._append(task_id, self._owner(context), config["id"], content)
        return _from_json(config, getattr(types, _CONFIG_TYPE))

    async def get_info(self, task_id: str, context: Any = None) -> list[Any]:
        """Return the settings of a task that the call's user has made."""
        return await self._configs(task_id, self._owner(context))

    async def get_info_for_dispatch(self, task_id: str) -> list[Any]:
        """Return the settings of a task that any user has made."""
        return await self._configs(task_id, None)

    async def delete_info(self, task_id: str, context: Any = None, config_id: str | None = None) -> None:
        """Delete a setting of a task, or all that the call's user has made."""
        if not isinstance(context, str | None):
            owner = self._owner(context)
        else:  # 0.3 has no context before the id
            owner, config_id = self._owner(None), config_id or context
        settings = await self._settings(task_id)
        for its_owner, its_id in settings:
            if its_owner == owner and config_id in (None, its_id):
                await self._append(task_id, owner, its_id, {})

    async def _configs(self, task_id: str, owner: str | None) -> list[Any]:
        settings = await self._settings(task_id)
        kind = getattr(types, _CONFIG_TYPE)
        wanted = [content for (its_owner, _), content in settings.items() if owner in (None, its_owner)]
        return [_from_json(config, kind) for config in map(self._config, wanted) if config is not None]

    def _config(self, content: Json) -> Json | None:
        """Return the setting in an event; None if it was encrypted with another key, so that all others can be used."""
        if "sealed" not in content:
            config: Json = content["config"]
            return config
        with suppress(InvalidToken):
            if self._fernet is not None:
                opened: Json = from_json(self._fernet.decrypt(content["sealed"]))
                return opened
        _logger.error(
            "push notification %r of task %r is encrypted with another key: give "
            "EventStorePushNotificationConfigStore the encryption_key with which it was stored",
            content["config_id"], content["task_id"],
        )  # fmt: skip
        return None

    async def _settings(self, task_id: str) -> dict[tuple[str, str], Json]:
        """Return the settings of a task by their owners and ids."""
        found: dict[tuple[str, str], Json] = {}
        async for event in self._tasks.store.read(self._tasks.records_id(task_id), types=[_CONFIG]):
            key = event.content["owner"], event.content["config_id"]
            found.pop(key, None)
            if "config" in event.content:
                found[key] = event.content
        return found

    async def _append(self, task_id: str, owner: str, config_id: str, content: Json) -> None:
        content = {"task_id": task_id, "owner": owner, "config_id": config_id} | content
        change = NewEvent(ApplicationEvent(_CONFIG, content), actor=owner or USER)
        records_id, is_begun = self._tasks.records_id(task_id), False
        while True:
            user, expected = (None, EXISTS) if is_begun else (owner or None, NO_STREAM)
            try:
                await self._tasks.store.append(records_id, [change], expected=expected, user=user)
            except (Forbidden, WrongExpectedVersion):
                is_begun = True  # perhaps by another user, such as the task's
            else:
                return
