"""History, sessions and checkpoints of Microsoft's Agent Framework (``agent-framework-core``, tested with 1.23).

The history of a session is the conversation whose given id is the session's id: a message is MessageAdded, and each
tool call in it a task besides, which its result completes. The state of a session is an event of the same conversation.
The checkpoints of workflows are events of a conversation of their own.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID, uuid4

from agent_framework import (
    AgentSession,
    HistoryProvider,
    Message,
    SessionStore,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
)
from agent_framework._sessions import filter_new_messages
from agent_framework._workflows._checkpoint_encoding import decode_checkpoint_value, encode_checkpoint_value

from agent_manager.a2a import Json
from agent_manager.adapters.conversation_history import HistoryAccess, StoredEvent
from agent_manager.adapters.message_forms import (
    form_of,
    json_if_unstorable,
    message_of,
    plain_text,
    storable,
)
from agent_manager.adapters.tool_calls import arguments_in, describe_call, result_parts, to_text
from eventstore import (
    NO_STREAM,
    ApplicationEvent,
    Event,
    EventStore,
    NewEvent,
    Role,
    Settings,
    SyncEventStore,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
)
from eventstore.database.queries import query
from eventstore.errors import EventIdConflict, InvalidEvent, WrongExpectedVersion
from eventstore.ids import derived_uuid
from eventstore.message_format import ROLES
from eventstore.read import RawRows

EXTRA = "agent_framework"
"""The member of ``extra`` with what the other members do not hold of a message. A text is the whole message as JSON."""
SESSION = "agent_framework.session"
"""The type of the application event that holds the state of a session; null if it was deleted."""
CHECKPOINT = "agent_framework.checkpoint"
CHECKPOINT_DELETED = "agent_framework.checkpoint_deleted"
"""The types of the application events that hold, and delete, a checkpoint. The actor is the workflow."""

_CHECKPOINT_EVENTS = query("agent_manager.adapters", "checkpoint_events")
_CHECKPOINTS_OF_WORKFLOW = query("agent_manager.adapters", "checkpoints_of_workflow")


class EventStoreHistoryProvider(HistoryProvider):
    """The history of sessions in the event store::

        async with EventStore() as store:
            agent = Agent(client, context_providers=[EventStoreHistoryProvider(store)])
            await agent.run("Hello", session=agent.create_session(session_id="user-123"))

    As the framework's own providers do, it stores of the messages of a run only those that the history does not end
    with already.

    Args:
        store: an open store; the caller closes it. Any thread and any event loop may use the provider.
        source_id: identifies the provider in an agent.
        user: the user on whose behalf it reads and writes; the whole tenant if left out.
        skip_excluded: whether messages are left out that compaction has marked as excluded.
        options: those of :class:`HistoryProvider`, such as ``load_messages``.
    """

    DEFAULT_SOURCE_ID: ClassVar[str] = "eventstore"
    DEFAULT_SESSION_ID: ClassVar[str] = "default"
    """The session of runs without one, as in the framework's FileHistoryProvider."""

    def __init__(
        self,
        store: EventStore | SyncEventStore,
        source_id: str = DEFAULT_SOURCE_ID,
        *,
        user: str | None = None,
        skip_excluded: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(source_id, **options)
        self.user = user
        self.skip_excluded = skip_excluded
        self._access = HistoryAccess(store)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings | None = None, **options: Any) -> AsyncIterator[Self]:
        """Open a store for this provider alone; ``options`` are those of the class."""
        async with EventStore(settings) as store:
            yield cls(store, **options)

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Message]:
        """Return the messages of a session, the oldest first."""
        messages, _ = await self._access.run(self._latest(session_id or self.DEFAULT_SESSION_ID, None))
        if self.skip_excluded:
            messages = [each for each in messages if not each.additional_properties.get("_excluded", False)]
        return messages

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append the messages that the history does not end with: all of them, durably, or none.

        Raises:
            NoJsonForm: a message has no JSON form.
            EventTooLarge: a message is larger than the store allows.
        """
        if messages:
            await self._access.finish(self._save(session_id or self.DEFAULT_SESSION_ID, messages))

    async def _save(self, session_id: str, messages: Sequence[Message]) -> None:
        while True:
            # One more than are new, so that what overlaps is found as in the whole history.
            latest, version = await self._latest(session_id, len(messages) + 1)
            new = filter_new_messages(latest, messages)
            if not new:
                return
            tasks = await self._access.tasks_of(session_id, _open_results(new), self.user)
            with suppress(WrongExpectedVersion):  # another writer appended meanwhile
                try:
                    await self._append(session_id, _events_of(new, tasks), version)
                except InvalidEvent:
                    await self._append(session_id, _events_of(new, tasks, check=True), version)
                return

    async def _append(self, session_id: str, events: Iterable[NewEvent], version: int) -> None:
        await self._access.extend(session_id, list(events), self.user, version or NO_STREAM)

    async def _latest(self, session_id: str, wanted: int | None) -> tuple[list[Message], int]:
        """Return the latest messages, or all, the oldest first, and the version at which the conversation was read."""
        found: list[Message] = []
        version, moved = 0, defaultdict[str, dict[int, Json]](dict)
        async with aclosing(self._access.events(session_id, self.user, wanted)) as events:
            async for event in events:
                version = version or event.version
                if event.event_type in ("task.created", "task.artifact_added"):
                    reference = (event.content.get("metadata") or {}).get(EXTRA) or {}
                    if "message_id" in reference:
                        moved[reference["message_id"]][reference["number"]] = event.content
                elif (message := _message(event, moved.pop(str(event.id), {}))) is not None:
                    found.append(message)
                    if len(found) == wanted:
                        break
        return found[::-1], version


# Messages as events


def _events_of(messages: Sequence[Message], tasks: dict[str, UUID], *, check: bool = False) -> Iterator[NewEvent]:
    """Yield the events of messages, and of the tasks of the calls in them.

    Args:
        tasks: the tasks of calls whose results may be among the messages, by the id of the call. It is updated.
        check: whether a message that cannot be stored as it is, such as one with a NUL character, is kept as JSON.
    """
    for message in messages:
        form: Json = message.to_dict()
        role = ROLES.get(message.role, Role.ASSISTANT)
        text = json_if_unstorable(form) if check else None
        shown = form if text is None else storable(form)
        message_id = uuid4()
        data_of_tasks = list(_task_events(shown["contents"], message_id, tasks))
        data = message_of(shown, "contents", role, EXTRA, given_id=_given_id(message))
        if text is not None:
            data = data.model_copy(update={"extra": {EXTRA: text}})
        yield NewEvent(data, message_id, actor=str(role))
        for task in data_of_tasks:
            yield NewEvent(task, actor=str(role))


def _given_id(message: Message) -> str | None:
    return storable(message.message_id) if isinstance(message.message_id, str) else None


def _task_events(
    contents: list[Json], message_id: UUID, tasks: dict[str, UUID]
) -> Iterator[TaskCreated | TaskArtifactAdded | TaskStatusChanged]:
    """Move the arguments and results of the calls in a message to events of tasks, and yield these."""
    for number, content in enumerate(contents):
        reference = {EXTRA: {"message_id": str(message_id), "number": number}}
        call_id = content.get("call_id")
        if not isinstance(call_id, str):
            continue
        if content["type"] == "function_call":
            tasks[call_id] = task_id = uuid4()
            description = _name(content)
            if (arguments := content.get("arguments")) is not None:
                is_text = isinstance(arguments, str)
                description = describe_call(description, arguments if is_text else to_text(arguments))
                content["arguments"] = None if is_text else _PARSED
            yield TaskCreated(
                task_id=task_id,
                description=description,
                status=TaskStatus.IN_PROGRESS,
                given_id=call_id,
                metadata=reference,
            )
        elif content["type"] == "function_result":
            task_id = tasks.get(call_id) or uuid4()
            parts = []
            if isinstance(result := content.get("result"), str):
                parts, content["result"] = result_parts({"result": result}), None
                if content.get("items") == _items(result):
                    content["items"] = None
            yield TaskArtifactAdded(task_id=task_id, artifact_id="result", parts=parts, metadata=reference)
            status = TaskStatus.COMPLETED if content.get("exception") is None else TaskStatus.FAILED
            yield TaskStatusChanged(task_id=task_id, status=status)


_PARSED: Json = {}
"""Stands for the arguments of a call that were not a text; a text leaves null."""


def _name(content: Json) -> str:
    return content.get("name") or "unnamed"


def _items(result: str) -> list[Json]:
    """Return the items that the framework makes of the result of a call."""
    return [{"type": "text", "text": result, "additional_properties": {}}]


def _put_back(contents: list[Json], moved: Mapping[int, Json]) -> None:
    """Put the arguments and results of calls back, from the contents of the events to which they were moved."""
    for number, content in enumerate(contents):
        if not isinstance(content.get("call_id"), str) or content["type"] not in ("function_call", "function_result"):
            continue
        event, name = moved.get(number, {}), _name(content)
        if "arguments" in content and content["arguments"] in (None, _PARSED):
            if (description := event.get("description", name)) not in (name, ""):  # "" if it was erased
                arguments = arguments_in(description, name)
                content["arguments"] = arguments if content["arguments"] is None else json.loads(arguments)
        elif "result" in content and content["result"] is None and event.get("parts"):
            content["result"] = result = event["parts"][0]["text"]
            if content.get("items", ()) is None:
                content["items"] = _items(result)


def _open_results(messages: Sequence[Message]) -> list[str]:
    """Return the ids of the calls whose results are in the messages, but not the calls themselves."""
    known: set[str] = set()
    found: dict[str, None] = {}
    for content in (content for message in messages for content in message.contents):
        if content.type == "function_call" and isinstance(content.call_id, str):
            known.add(content.call_id)
        elif content.type == "function_result" and isinstance(content.call_id, str) and content.call_id not in known:
            found[content.call_id] = None
    return list(found)


def _message(event: StoredEvent, moved: Mapping[int, Json]) -> Message | None:
    """Return the message of an event; None if it has none.

    Args:
        moved: the contents of the events of tasks that belong to it, by the numbers of the contents in it.
    """
    if event.event_type != "message.added":
        return None
    content: Any = event.content
    own = (content.get("extra") or {}).get(EXTRA)
    if isinstance(own, str):
        return Message.from_dict(json.loads(own))
    if own is not None:
        form = form_of(content, "contents", EXTRA)
        _put_back(form["contents"], moved)
        return Message.from_dict(form)
    text = plain_text(content)  # of another writer
    return Message(content["role"], [text], message_id=content.get("given_id")) if text else None


# Sessions

with warnings.catch_warnings():  # that the class is experimental; the importer may use only the history
    warnings.simplefilter("ignore", FutureWarning)

    class _SessionStore(SessionStore):
        """The framework's class of session stores."""


class EventStoreSessionStore(_SessionStore):
    """Snapshots of sessions in the event store; of several writers, the last one wins.

    Args:
        store: an open store; the caller closes it. Any thread and any event loop may use it.
        user: the user on whose behalf it reads and writes; the whole tenant if left out.
    """

    def __init__(self, store: EventStore | SyncEventStore, *, user: str | None = None) -> None:
        super().__init__()
        self.user = user
        self._access = HistoryAccess(store)

    async def get(self, session_id: str) -> AgentSession | None:
        """Return the session that was stored under an id; None if there is none."""
        self.validate_session_id(session_id)
        snapshot = await self._access.run(self._snapshot(session_id))
        return None if snapshot is None else AgentSession.from_dict(snapshot)

    async def set(self, session_id: str, session: AgentSession) -> None:
        """Store a session under an id.

        Raises:
            TypeError: it is of a subclass, which could not be restored.
            NoJsonForm: its state has a value without a JSON form; register its type with ``register_state_type``.
        """
        self.validate_session_id(session_id)
        if type(session) is not AgentSession:
            raise TypeError(f"session: {type(session).__name__} cannot be restored: give AgentSession instances only")
        snapshot = session.to_dict()
        if isinstance(snapshot["service_session_id"], Mapping):
            snapshot["service_session_id"] = dict(snapshot["service_session_id"])
        text = json_if_unstorable(snapshot)
        content = {"session": snapshot} if text is None else {"json": text}
        await self._access.finish(self._append(session_id, content))

    async def delete(self, session_id: str) -> None:
        """Delete the session that was stored under an id. The history of the conversation stays."""
        self.validate_session_id(session_id)
        await self._access.finish(self._delete(session_id))

    async def _snapshot(self, session_id: str) -> Json | None:
        async with aclosing(self._access.events(session_id, self.user, 1)) as events:
            async for event in events:
                if event.event_type == SESSION:
                    content: Any = event.content
                    if content is None:
                        return None
                    snapshot: Json = content["session"] if "session" in content else json.loads(content["json"])
                    return snapshot
        return None

    async def _append(self, session_id: str, content: Any) -> None:
        await self._access.extend(session_id, [NewEvent(ApplicationEvent(SESSION, content))], self.user)

    async def _delete(self, session_id: str) -> None:
        if await self._snapshot(session_id) is not None:
            await self._append(session_id, None)


# Checkpoints of workflows


class EventStoreCheckpointStorage:
    """Checkpoints of workflows in the event store (the framework's protocol ``CheckpointStorage``).

    The framework pickles values that JSON does not have. As in its FileCheckpointStorage, only known types are read.

    Args:
        store: an open store; the caller closes it. Any thread and any event loop may use it.
        name: the given id of the conversation that holds the checkpoints.
        user: the user on whose behalf it reads and writes; the whole tenant if left out.
        allowed_checkpoint_types: further types, as ``module:qualname``.
    """

    def __init__(
        self,
        store: EventStore | SyncEventStore,
        *,
        name: str = "agent_framework.checkpoints",
        user: str | None = None,
        allowed_checkpoint_types: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.user = user
        self._allowed_types = frozenset(allowed_checkpoint_types)
        self._access = HistoryAccess(store)
        self._conversation_id = self._access.conversation_id(name)

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store a checkpoint, instead of an earlier one with the same id, and return its id.

        Raises:
            WorkflowCheckpointException: it could not be restored.
        """
        checkpoint_id = checkpoint.checkpoint_id
        try:
            value = encode_checkpoint_value(checkpoint.to_dict())
            decode_checkpoint_value(value, allowed_types=self._allowed_types)
            text = json_if_unstorable(value)
        except WorkflowCheckpointException:
            raise
        except Exception as error:
            raise WorkflowCheckpointException(f"checkpoint {checkpoint_id} could not be restored: {error}") from error
        content = {"checkpoint_id": checkpoint_id, "timestamp": checkpoint.timestamp}
        content |= {"checkpoint": value} if text is None else {"json": text}
        event = ApplicationEvent(CHECKPOINT, content)
        await self._access.finish(self._record(checkpoint_id, checkpoint.workflow_name, event))
        return checkpoint_id

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """Return a checkpoint.

        Raises:
            WorkflowCheckpointException: there is none with the id, or it has a type that is not allowed.
        """
        event, _ = await self._access.run(self._find(checkpoint_id))
        if event is None:
            raise WorkflowCheckpointException(f"No checkpoint found with ID {checkpoint_id}")
        return self._restored(event)

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """Return the checkpoints of a workflow, in the order in which they were first saved."""
        listed = await self._access.run(self._listed(workflow_name))
        events = await self._access.run(self._fetch([event_id for event_id, _ in listed.values()]))
        by_id = {event.id: event for event, _ in events}
        return [self._restored(by_id[event_id]) for event_id, _ in listed.values()]

    async def delete(self, checkpoint_id: str) -> bool:
        """Delete a checkpoint; return whether there was one."""
        return await self._access.finish(self._delete(checkpoint_id))

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """Return the latest checkpoint of a workflow by its timestamp; None if it has none."""
        listed = await self._access.run(self._listed(workflow_name))
        if not listed:
            return None
        event_id, _ = max(listed.values(), key=lambda entry: datetime.fromisoformat(entry[1]))
        [(event, _)] = await self._access.run(self._fetch([event_id]))
        return self._restored(event)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """Return the ids of the checkpoints of a workflow, in the order in which they were first saved."""
        return list(await self._access.run(self._listed(workflow_name)))

    async def _record(self, checkpoint_id: str, workflow_name: str, data: ApplicationEvent) -> None:
        """Append the next event of a checkpoint; most have only one."""
        number = 0
        while True:
            event = NewEvent(data, self._event_id(checkpoint_id, number), actor=workflow_name)
            with suppress(EventIdConflict):
                result = await self._access.extend(self.name, [event], self.user)
                if result.events[-1].is_new:
                    return
            latest, number = await self._find(checkpoint_id)
            if latest is not None and latest.content == data.content:
                return

    async def _delete(self, checkpoint_id: str) -> bool:
        event, _ = await self._find(checkpoint_id)
        if event is None:
            return False
        await self._record(
            checkpoint_id, event.actor, ApplicationEvent(CHECKPOINT_DELETED, {"checkpoint_id": checkpoint_id})
        )
        return True

    async def _find(self, checkpoint_id: str) -> tuple[Event | None, int]:
        """Return the event that holds a checkpoint, and the number of the checkpoint's events."""
        events: list[tuple[Event, bool]] = []
        step = 8
        while len(events) % step == 0:
            first = len(events)
            found = await self._fetch([self._event_id(checkpoint_id, first + index) for index in range(step)])
            if not found:
                break
            events += found
        if not events:
            return None, 0
        event, is_shown = next((each for each in reversed(events) if each[1]), events[-1])
        is_there = event.event_type == CHECKPOINT and is_shown and not event.is_erased
        return (event if is_there else None), len(events)

    async def _listed(self, workflow_name: str) -> dict[str, tuple[UUID, str]]:
        """Return the events that hold the checkpoints of a workflow, and their timestamps, by the checkpoints' ids."""
        parameters = self._parameters | {"workflow": workflow_name}
        listed: dict[str, tuple[UUID, str]] = {}
        for event_id, event_type, checkpoint_id, timestamp in await self._log.fetch(
            _CHECKPOINTS_OF_WORKFLOW, parameters
        ):
            if event_type == CHECKPOINT:
                listed[checkpoint_id] = (event_id, timestamp)
            else:
                listed.pop(checkpoint_id, None)
        return listed

    async def _fetch(self, ids: list[UUID]) -> list[tuple[Event, bool]]:
        """Return events in order, each with whether the conversation shows it."""
        rows = await self._log.fetch(_CHECKPOINT_EVENTS, self._parameters | {"ids": ids}, cursor=RawRows)
        return [(Event.from_row(row), row[-1]) for row in rows]

    @property
    def _log(self) -> Any:
        store = self._access.store
        return store.log(store.caller(user=self.user))

    @property
    def _parameters(self) -> Json:
        return {"tenant": self._access.store.tenant, "conversation_id": self._conversation_id}

    def _event_id(self, checkpoint_id: str, number: int) -> UUID:
        return derived_uuid(CHECKPOINT, self._access.store.tenant, str(self._conversation_id), checkpoint_id, number)

    def _restored(self, event: Event) -> WorkflowCheckpoint:
        content: Any = event.content
        value = content["checkpoint"] if "checkpoint" in content else json.loads(content["json"])
        decoded = decode_checkpoint_value(value, allowed_types=self._allowed_types)
        return WorkflowCheckpoint.from_dict(decoded)
