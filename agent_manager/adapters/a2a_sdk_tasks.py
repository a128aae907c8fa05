"""The tasks of a2a-sdk's stores in the log: finding, reading, saving, listing and deleting them.

A task's id does not tell its conversation. The first save of a task also appends a record of it to a conversation whose
id follows from the task's: of two first writers, only one can begin that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import quote
from uuid import UUID
from weakref import WeakValueDictionary

from cachetools import LRUCache

from agent_manager.a2a import RESERVED, status_of
from agent_manager.adapters.a2a_sdk_state import USER, Home, TaskState, conversation_begun, emptied, events_of_save
from agent_manager.adapters.a2a_sdk_values import converted, loaded, stored_json, types
from agent_manager.adapters.store_access import StoreAccess, restart
from agent_manager.agents.recorder import task_uuid
from eventstore import (
    NO_STREAM,
    Append,
    ApplicationEvent,
    Event,
    NewEvent,
    TaskDeleted,
    conversation_uuid,
)
from eventstore.database.pools import ScopedPool
from eventstore.database.queries import query, query_without
from eventstore.errors import ConversationIsDeleted, Forbidden, InputError, WrongExpectedVersion, printable
from eventstore.event_types import RECEIPTS
from eventstore.read import RawRows, end_of_log
from projections.read_your_writes import fetch_at_least

RECORDS = RESERVED + "a2a-sdk:"
"""Prefix of the conversations, one for each task, that record where tasks are. The read tables do not have them."""
_HOME = "a2a.home"
_PAGE = 1000
"""Events of a task in one statement."""
_KEPT_TASKS = 500
"""Tasks whose state is kept: a task takes one statement to read, so this only has to cover those that are active."""
_HIDING = (*RECEIPTS, "conversation.rewound")
"""Types of the events that hide earlier ones."""
_LIST_SECONDS = 10.0
"""Seconds that a list waits for the read tables."""
_TASK_EVENTS, _HAS_OTHERS = (query("agent_manager.adapters", name) for name in ("a2a_task_events", "a2a_has_others"))

Check: TypeAlias = Callable[[TaskState | None], None]
"""A function that raises an error if a task may not be saved over the state that it receives."""


class Tasks:
    """The tasks of one store's tenant, with the state of those that were used last."""

    def __init__(self, access: StoreAccess) -> None:
        self.access = access
        self.store = access.store
        self._kept: LRUCache[str, TaskState] = LRUCache(_KEPT_TASKS)
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @property
    def log(self) -> ScopedPool:
        """The log of the tenant."""
        return self.store.log(self.store.caller())

    async def find(self, task_id: str, owner: str) -> TaskState | None:
        """Return the present state of a task; None if there is no record of it, or it is another owner's."""
        state = await self.known(task_id)
        if state is None or state.home.owner != owner:
            return None
        await self.refresh([state])
        return state

    async def known(self, task_id: str) -> TaskState | None:
        """Return the state of a task as it is kept; None if there is no record of the task."""
        if (state := self._kept.get(task_id)) is not None:
            return state
        home = await self.home(task_id)
        return None if home is None else self._keep(self.unread(task_id, home))

    def unread(self, task_id: str, home: Home) -> TaskState:
        """Return the state of a task before its first event."""
        return TaskState(task_id, home, task_uuid(self.store.tenant, home.conversation_id, task_id))

    def _keep(self, state: TaskState) -> TaskState:
        kept: TaskState = self._kept.setdefault(state.task_id, state)
        return kept

    async def refresh(self, states: Sequence[TaskState]) -> None:
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
            outdated: dict[int, TaskState] = {}
            for number, version, *row in await self.log.fetch(_TASK_EVENTS, given, cursor=RawRows):
                latest[number - 1] = version
                if row[0] is not None:
                    counts[number - 1] += 1
                    event, state = Event.from_row(row), behind[number - 1]
                    if event.event_type in _HIDING and id(state) in begun:
                        outdated[id(state)] = state
                    state.apply(event.version, event.id, event.data, event.metadata)
                    if event.event_type == "conversation.created":
                        state.is_nameless = event.is_erased
            for state in outdated.values():  # they hold what is hidden now
                begun.discard(id(state))
                state.forget()
            for state, count, version in zip(behind, counts, latest, strict=True):
                if count < _PAGE and id(state) not in outdated:
                    state.read_to = max(state.read_to, version)
            behind = [
                state for state, count in zip(behind, counts, strict=True) if count == _PAGE or id(state) in outdated
            ]

    async def save(
        self, value: Any, owner: str, *, update: Any = None, kind: str | None = None,
        check: Check | None = None, may_create: bool = True,
    ) -> int:  # fmt: skip
        """Store what changed of a task, and return the version of its last save.

        Args:
            value: the task, as a2a-sdk has it.
            update: the update that changed it, as a2a-sdk has it, for the streams of the task.
            kind: the kind of the update: ``task``, ``status`` or ``artifact``.
            check: makes sure that something is stored, and that it is stored only over a certain state.
            may_create: whether the task may be new.
        """
        task_id: str = value.id
        state = self._kept.get(task_id)
        is_recorded, records_version = True, 0
        if state is None and not may_create:
            state = await self.find(task_id, owner)
        elif state is None:
            is_recorded, state = False, self.unread(task_id, self._new_home(value, owner))
        if state is None or state.home.owner != owner:
            if check is not None:
                check(None)
            raise _of_another_user(task_id)
        state.converted = await converted(self.store, value, state.converted, state.home.conversation_id)
        saved, task = state.converted
        changed = None if update is None else await stored_json(self.store, update, state.home.conversation_id)
        conversation_id = state.home.conversation_id
        records_id = None if is_recorded else self.records_id(task_id)
        caller, actor = self.store.caller(user=owner or None), owner or USER
        async with self._locks.setdefault(conversation_id, asyncio.Lock()):
            while True:
                if check is not None:
                    await self._check(state, check)
                before = state.reactivated if state.is_emptied else state.without_remains
                events = events_of_save(self.store, before, task, changed, kind, is_needed=check is not None)
                if not events:
                    return state.version
                if state.is_emptied:
                    events[:0] = restart(actor)
                elif state.is_nameless or not state.read_to:
                    events.insert(0, conversation_begun(state.home, actor))
                if state.has_remains:
                    events.insert(0, NewEvent(TaskDeleted(task_id=state.id), actor=actor))
                appends = [Append(conversation_id, events, state.read_to or NO_STREAM)]
                if records_id is not None:
                    record = NewEvent(ApplicationEvent(_HOME, state.home.content(task_id)), actor=actor)
                    appends.append(Append(records_id, [record], records_version or NO_STREAM))
                try:
                    result = await self.access.append_all(caller, appends)
                except Forbidden:
                    raise _of_another_user(task_id) from None
                except ConversationIsDeleted:
                    await self.refresh([state])
                    if not state.is_emptied:
                        raise
                except WrongExpectedVersion as error:
                    if error.conversation_id != records_id:
                        await self.refresh([state])
                        continue
                    records_version = error.actual
                    if await self.known(task_id) is not None:
                        break  # another writer has begun the task, perhaps in another conversation
                else:
                    for event, place in zip(events, result.events, strict=False):
                        state.apply(place.version, event.id, event.data, event.metadata)
                    known = state.task  # of objects that the next save finds in the state
                    state.converted = None if state.is_final else (saved, known if known == task else task)
                    self._keep(state)
                    return state.version
        return await self.save(value, owner, update=update, kind=kind, check=check, may_create=may_create)

    async def _check(self, state: TaskState, check: Check) -> None:
        try:
            check(state)
        except Exception:  # the state that is kept may be an earlier one than the caller has read elsewhere
            await self.refresh([state])
            check(state)

    async def delete(self, task_id: str, owner: str) -> None:
        """Delete a task from the store, if it exists; with the last one of its context, hide the messages too."""
        while (state := await self.find(task_id, owner)) is not None and state.task is not None:
            place = {"conversation_id": state.home.conversation_id, "task": str(state.id)}
            [(has_others,)] = await self.log.fetch(_HAS_OTHERS, place | {"tenant": self.store.tenant})
            actor = owner or USER
            events = [NewEvent(TaskDeleted(task_id=state.id), actor=actor), *([] if has_others else [emptied(actor)])]
            with suppress(WrongExpectedVersion):
                caller = self.store.caller(user=owner or None)
                await self.access.append(caller, state.home.conversation_id, events, state.read_to)
                return

    def records_id(self, task_id: str) -> UUID:
        """Return the id of the conversation that records where a task is, and its settings of push notifications."""
        return conversation_uuid(self.store.tenant, RECORDS + task_id)

    def _new_home(self, task: Any, owner: str) -> Home:
        context_id = task.context_id or ""
        name = context_id or task.id
        name = f"{quote(owner, safe='')}/{name}" if owner else name
        return Home(conversation_uuid(self.store.tenant, name), name, context_id, owner)

    async def home(self, task_id: str) -> Home | None:
        """Return where a task is stored; None if there is no record of it."""
        async for event in self.store.read(self.records_id(task_id), types=[_HOME], backwards=True, limit=1):
            if (content := event.content) is None or event.is_erased:
                break
            name = content["conversation"]
            return Home(conversation_uuid(self.store.tenant, name), name, content["context_id"], content["owner"])
        return None


def _of_another_user(task_id: str) -> InputError:
    return InputError(f"task {printable(task_id)!r} belongs to another user: choose another id")


async def tasks_page(tasks: Tasks, params: Any, owner: str) -> Any:
    """Return a page of the tasks of a user, latest status first, as a2a-sdk has it."""
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
    caller, at_least = store.caller(user=owner or None), await end_of_log(tasks.log)
    names = ("conversations", "tasks")
    rows, _ = await fetch_at_least(store, caller, text, given | wanted, names, at_least, _LIST_SECONDS)
    page = [row for row in rows if row[1] is not None]
    states = [await tasks.known(task_id) for _, task_id, _ in page[:size]]
    known = [state for state in states if state is not None and state.home.owner == owner]
    await tasks.refresh(known)
    response = types.ListTasksResponse(
        tasks=[
            await loaded(store, state.task, types.Task, state.home.conversation_id)
            for state in known
            if state.task is not None
        ],
        total_size=rows[0][0],
        page_size=size,
    )
    if len(page) > size:
        _, task_id, time = page[size - 1]
        time_ns = None if time is None else _time_of(time).ToNanoseconds()
        response.next_page_token = encode_list_tasks_cursor(ListTasksCursor(time_ns, task_id))
    return response


async def _after_token(tasks: Tasks, owner: str, token: str) -> dict[str, Any]:
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
