"""a2a-sdk's stores of an agent's server: tasks, versioned tasks, event streams across replicas, push notifications.

Tested with a2a-sdk 1.3 and 0.3; 0.3 has no versioned tasks and no event streams.

The tasks of an A2A context are in one conversation, with the vocabulary of the manager: an event has only what a save
changed. The messages of a task's history are messages of the conversation. A message that moved there from the task's
status is already stored with that status, so the history has references. Large files are stored beside the log.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast
from uuid import UUID

from a2a.server.tasks.task_store import TaskStore

from agent_manager.adapters.a2a_sdk_push import EventStorePushNotificationConfigStore
from agent_manager.adapters.a2a_sdk_state import Home, TaskState, note_of, published
from agent_manager.adapters.a2a_sdk_tasks import Tasks, tasks_page
from agent_manager.adapters.a2a_sdk_values import OwnerResolver, loaded, types, user_name
from agent_manager.adapters.store_access import StoreAccess, finished_in_store_loop, in_store_loop, shown
from eventstore import ConversationRewound, Event, EventStore, SyncEventStore
from eventstore.read import end_of_log

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

__all__ = ["EventStorePushNotificationConfigStore", "EventStoreTaskStore", "OwnerResolver", "user_name"]
if _CLUSTER:
    __all__ += ["EventStoreTaskEventStream", "EventStoreVersionedTaskStore"]


class EventStoreTaskStore(TaskStore):
    """A2A tasks in an event store.

    Args:
        store: an open store; the caller closes it. Any thread and any event loop may use the tasks.
        owner_resolver: returns the user of a call. Tasks of another user do not exist for it.
    """

    def __init__(self, store: EventStore | SyncEventStore, owner_resolver: OwnerResolver = user_name) -> None:
        self._access = StoreAccess(store)
        self._tasks = Tasks(self._access)
        self._owner = owner_resolver

    async def initialize(self) -> None:
        """Do nothing, for applications that call it: the store is open."""

    @finished_in_store_loop
    async def save(self, task: Any, context: Any = None) -> None:
        """Store what changed of a task."""
        await self._tasks.save(task, self._owner(context))

    @in_store_loop
    async def get(self, task_id: str, context: Any = None) -> Any:
        """Return a task; None if it does not exist."""
        state = await self._tasks.find(task_id, self._owner(context))
        if state is None or (task := state.task) is None:
            return None
        return await loaded(self._tasks.store, task, types.Task, state.home.conversation_id)

    @in_store_loop
    async def list(self, params: Any, context: Any = None) -> Any:
        """Return a page of the tasks of the call's user, latest status first.

        It contains everything that was stored before, so it waits for the worker of the read tables.

        Raises:
            NotCaughtUp: the read tables are behind, or there is no worker.
            InvalidParamsError: the page token is not valid.
        """
        return await tasks_page(self._tasks, params, self._owner(context))

    @finished_in_store_loop
    async def delete(self, task_id: str, context: Any = None) -> None:
        """Delete a task from the store. Its events remain in the log."""
        await self._tasks.delete(task_id, self._owner(context))


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
    horizon, version = await end_of_log(store.log(store.caller())), 0
    async with aclosing(cast("AsyncGenerator[Event, None]", store.read(conversation_id))) as events:
        async for event in events:
            yield event
            version = event.version
    async with aclosing(cast("AsyncGenerator[Event, None]", store.subscribe(after=horizon))) as events:
        async for event in events:
            if event.conversation_id == conversation_id and event.version > version:
                yield event


async def _stored_update(store: EventStore, state: TaskState, kind: str | None, events: Sequence[Event]) -> Any:
    """Return the update that the events of a save published; None if it published none."""
    if kind is None:
        return None
    update = published(state, kind, events)
    if kind == "whole":
        content = events[-1].content
        kind, update = content["kind"], content["event"]
    classes = {"task": "Task", "status": "TaskStatusUpdateEvent", "artifact": "TaskArtifactUpdateEvent"}
    kind_class = getattr(types, classes.get(str(kind), "Message"))
    return await loaded(store, update or {}, kind_class, state.home.conversation_id)


if _CLUSTER:

    class EventStoreVersionedTaskStore(VersionedTaskStore):
        """A2A tasks in an event store for several replicas of an agent: a save names the version that it is based on.

        A version is that of the task's conversation. See :class:`EventStoreTaskStore`.
        """

        def __init__(self, store: EventStore | SyncEventStore, owner_resolver: OwnerResolver = user_name) -> None:
            self._store = EventStoreTaskStore(store, owner_resolver)
            self._access, self._tasks = self._store._access, self._store._tasks
            self._owner = owner_resolver

        @property
        def as_task_store(self) -> EventStoreTaskStore:
            """The same tasks without versions."""
            return self._store

        async def initialize(self) -> None:
            """Do nothing, for applications that call it: the store is open."""

        @finished_in_store_loop
        async def save(self, task: Any, *, event: Any = None, prev: Any = None, prev_version: Any, context: Any) -> Any:
            """Store what changed of a task, and the event that changed it for the streams of the task.

            Raises:
                ConcurrentTaskModificationError: the stored task has another version than ``prev_version``, or is to be
                    canceled and has ended.
            """
            expected, is_canceled = _number(prev_version), task.status.state == types.TaskState.TASK_STATE_CANCELED

            def check(state: TaskState | None) -> None:
                stored = 0 if state is None or state.task is None else state.version
                is_stale = not stored or (state is not None and state.is_final) if is_canceled else stored != expected
                if is_stale:
                    raise ConcurrentTaskModificationError(task.id)

            version = await self._tasks.save(
                task,
                self._owner(context),
                update=event,
                kind=None if event is None else _kind_of(event),
                check=check,
                may_create=not expected and not is_canceled,
            )
            return TaskVersion(version)

        @in_store_loop
        async def get(self, task_id: str, context: Any) -> Any:
            """Return a task with its version; None if it does not exist."""
            state = await self._tasks.find(task_id, self._owner(context))
            if state is None or (task := state.task) is None:
                return None
            value = await loaded(self._tasks.store, task, types.Task, state.home.conversation_id)
            return StoredTask(value, TaskVersion(state.version))

        async def list(self, params: Any, context: Any) -> Any:
            """Return a page of tasks; see :meth:`EventStoreTaskStore.list`."""
            return await self._store.list(params, context)

        @finished_in_store_loop
        async def delete(self, task_id: str, context: Any) -> None:
            """Delete a task from the store. Its events remain in the log."""
            await self._tasks.delete(task_id, self._owner(context))

    class EventStoreTaskEventStream(TaskEventStream):
        """The updates of A2A tasks that any replica has saved in an event store, without polling.

        They are stored by :class:`EventStoreVersionedTaskStore`, in the same append as the task.
        """

        def __init__(self, store: EventStore | SyncEventStore) -> None:
            self._access = StoreAccess(store)
            self._tasks = Tasks(self._access)

        async def initialize(self) -> None:
            """Do nothing, for applications that call it: the store is open."""

        async def publish(self, task_id: str, event: Any) -> None:
            """Do nothing: an update is published by the save that stores it."""

        async def subscribe(self, task_id: str, *, after: Any) -> AsyncGenerator[Any, None]:
            """Yield the updates of a task that follow a version, and all future ones, each once."""
            seen = 0 if after.is_missing else _number(after)
            async with aclosing(self._access.iterate(self._updates(task_id, seen))) as updates:
                async for update in updates:
                    yield update

        async def _updates(self, task_id: str, seen: int) -> AsyncGenerator[Any, None]:
            tasks, store, home = self._tasks, self._access.store, None
            while home is None:
                horizon = await end_of_log(tasks.log)
                if (home := await tasks.home(task_id)) is None:
                    await store.wait(horizon)
            state, pending = tasks.unread(task_id, home), list[Event]()
            async with aclosing(_events_of_conversation(store, home.conversation_id)) as events:
                async for event in events:
                    if isinstance(event.data, ConversationRewound):
                        state, pending = await self._state_at(event.version, task_id, home), []
                    if not state.concerns(event):
                        continue
                    pending.append(event)
                    state.apply(event.version, event.id, event.data, event.metadata)
                    if not (note := note_of(event.metadata)).get("saved"):
                        continue
                    saved, pending = pending, []
                    if event.version <= seen:
                        continue
                    if (update := await _stored_update(store, state, note.get("event"), saved)) is not None:
                        yield VersionedEvent(event=update, version=TaskVersion(event.version))

        async def _state_at(self, version: int, task_id: str, home: Home) -> TaskState:
            state = self._tasks.unread(task_id, home)
            events = self._access.store.read(home.conversation_id, until_version=version)
            for event in shown([event async for event in events]):
                if state.concerns(event):
                    state.apply(event.version, event.id, event.data, event.metadata)
            return state

        async def destroy(self, task_id: str) -> None:
            """Do nothing: the log keeps the updates."""
