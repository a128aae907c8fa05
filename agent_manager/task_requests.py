"""Requests of clients about tasks: to cancel them, and to be notified of their changes.

A request is appended with the permissions of the client before the agent receives it, so that a client who may not
write to the conversation cannot use the agent. The state that the agent returns is appended as the agent's.

Everybody who may write to a conversation can append an event that begins a task under the id of a task of another
conversation. So the agent receives only the ids that it has given to tasks itself, in their first event.

The secrets of a setting of push notifications (``token``, ``authentication.credentials``) are passed on to the agent
and not stored: everybody who may read the log would see them.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from agent_manager.a2a import FINAL, OPEN, Json, push_notification_config, state_name, without_secrets
from agent_manager.agents.agent import (
    Answer,
    Context,
    PushNotifications,
    StatusUpdate,
    Update,
    cancellation,
    load,
    push_notifications_of,
)
from agent_manager.agents.recorder import Recording, actor_of
from agent_manager.agents.storable import split_event, storable
from agent_manager.agents.updates import checked_update
from agent_manager.conversation_cache import ConversationFoldCache
from agent_manager.conversation_fold import ConversationFold, PushNotification, TaskFold
from agent_manager.errors import AgentError, RequestUnsupported, TaskNotCancelable, TaskUnknown
from agent_manager.storage import Log
from agent_manager.writer import Writer
from eventstore import (
    EventData,
    NewEvent,
    TaskCancelRequested,
    TaskPushNotificationDeleted,
    TaskPushNotificationSet,
    TaskStatus,
)
from eventstore.errors import EventTooLarge, InputError, NotFound, printable

_USER = "user"
"""The actor of a request without one of its own."""


class TaskRequests:
    """The requests of clients about the tasks of a tenant.

    Args:
        log: appends with the permissions of the client.
        writer: appends what agents return.
    """

    def __init__(self, log: Log, cache: ConversationFoldCache, writer: Writer, agent: Answer | None) -> None:
        self._log = log
        self._cache = cache
        self._writer = writer
        self._agent = agent

    async def cancel(self, fold: ConversationFold, task_id: str, event_id: UUID | None = None) -> Json:
        """See :meth:`agent_manager.manager.Manager.cancel_task`.

        Args:
            event_id: the id of the event of the request, the same if the request is repeated.
        """
        task = _task(fold, task_id)
        shown = f"task {printable(task.given_id)!r}"
        if task.status in FINAL and event_id in task.cancel_requests:
            return fold.wire(task)  # the request is repeated
        if task.status in FINAL:
            raise TaskNotCancelable(f"{shown} cannot be cancelled: it is {task.status}")
        cancel = cancellation(self._agent)
        if cancel is None and self._agent is not None and _is_in_work(fold, task):
            raise TaskNotCancelable(f"{shown} cannot be cancelled: its agent is working on it, and cannot be stopped")
        if cancel is not None:
            await self._check_agent(task)
        await self._append(fold, TaskCancelRequested(task_id=task.id), event_id)
        if cancel is None:
            update: Update = StatusUpdate(task.given_id, None, {"state": state_name(TaskStatus.CANCELED, "0.3")})
        else:
            context = Context(self._log.tenant, fold.given_id, task.given_id)
            try:
                update = checked_update(await cancel(task.given_id, context))
            except TaskUnknown as error:
                raise TaskNotCancelable(f"{shown} cannot be cancelled: {error}") from error
        await self._record(fold.id, update)
        fold = await self._cache.existing(fold.id)
        return fold.wire(fold.tasks[task.id])

    async def set_push_notification(
        self, fold: ConversationFold, task_id: str, given: Json, event_id: UUID | None = None
    ) -> Json:
        """See :meth:`agent_manager.manager.Manager.set_push_notification`.

        Args:
            event_id: as for :meth:`cancel`; also the id of a setting that has none.
        """
        task, agent = _task(fold, task_id), self.check_push_notifications()
        await self._check_agent(task)
        event_id = event_id or uuid4()
        config = push_notification_config(given, str(event_id))
        shown = without_secrets(config)
        event = TaskPushNotificationSet(task_id=task.id, config_id=config["id"], config=shown)
        await self._append(fold, event, event_id)
        try:
            await agent.set_push_notification(task.given_id, config)
        except BaseException as error:
            await self._append(fold, TaskPushNotificationDeleted(task_id=task.id, config_id=config["id"]))
            if isinstance(error, TaskUnknown):
                raise RequestUnsupported(str(error)) from error
            raise
        return shown

    def push_notifications(self, fold: ConversationFold, task_id: str) -> list[Json]:
        """See :meth:`agent_manager.manager.Manager.push_notifications`."""
        return [each.config for each in _task(fold, task_id).push_notifications.values()]

    async def push_notification(self, fold: ConversationFold, task_id: str, config_id: str) -> Json:
        """See :meth:`agent_manager.manager.Manager.push_notification`."""
        task = _task(fold, task_id)
        kept = _push_notification(task, config_id)
        agent = push_notifications_of(self._agent)
        if agent is None or kept.actor != (self._log.actor or _USER):
            return kept.config
        try:
            await self._check_agent(task)
            return push_notification_config(await agent.push_notification(task.given_id, config_id), config_id)
        except (AgentError, RequestUnsupported, InputError):  # what is stored can be read without the agent
            return kept.config

    async def delete_push_notification(self, fold: ConversationFold, task_id: str, config_id: str) -> None:
        """See :meth:`agent_manager.manager.Manager.delete_push_notification`."""
        task, agent = _task(fold, task_id), self.check_push_notifications()
        kept = _push_notification(task, config_id)
        await self._check_agent(task)
        await self._append(fold, TaskPushNotificationDeleted(task_id=task.id, config_id=config_id))
        try:
            await agent.delete_push_notification(task.given_id, config_id)
        except TaskUnknown:
            pass  # the agent notifies nobody of it
        except BaseException:
            await self._append(fold, TaskPushNotificationSet(task_id=task.id, config_id=config_id, config=kept.config))
            raise

    def check_push_notifications(self) -> PushNotifications:
        """Return the settings of the agent's push notifications. Raises RequestUnsupported if it has none."""
        agent = push_notifications_of(self._agent)
        if agent is None:
            raise RequestUnsupported("the agent sends no push notifications: follow the events of the conversation")
        return agent

    async def _check_agent(self, task: TaskFold) -> None:
        """Check that the task is one of the agent. Raises RequestUnsupported."""
        await load(self._agent)
        if task.actor != actor_of(self._agent) or task.first_id != task.given_id:
            raise RequestUnsupported(
                f"task {printable(task.given_id)!r} was begun by {printable(task.actor)!r}, not by the agent "
                f"{printable(actor_of(self._agent))!r}"
            )

    async def _append(self, fold: ConversationFold, event: EventData, event_id: UUID | None = None) -> None:
        await self._log.append(fold.id, [NewEvent(event, event_id or uuid4(), actor=_USER)])

    async def _record(self, conversation: UUID, update: Update) -> None:
        """Append what an update adds to what is stored, such as by the answer that the task belongs to."""
        while True:
            fold = await self._cache.existing(conversation)
            recording = Recording(self._log.tenant, conversation, answer=self._agent, known_task=fold.recorded_task)
            events = recording.events_of(storable(update))
            try:
                await self._append_all(conversation, events, fold.version)
            except _Outdated:
                continue
            return

    async def _append_all(self, conversation: UUID, events: list[NewEvent], version: int) -> None:
        def check(fold: ConversationFold) -> None:
            if fold.version != version:
                raise _Outdated

        try:
            if events:
                await self._writer.add_answer(conversation, events, check)
        except EventTooLarge as error:
            parts = [part for event in events for part in split_event(event, error.limit)]
            await self._writer.add_answer(conversation, parts, check)


class _Outdated(Exception):
    """The conversation has changed since it was read."""


def _task(fold: ConversationFold, task_id: str) -> TaskFold:
    """Return the task of an id: the one that its agent chose, or that in the tables."""
    for task in fold.tasks.values():
        if task_id in (task.given_id, str(task.id)):
            return task
    raise NotFound(
        f"conversation {printable(fold.given_id)!r} has no task {printable(task_id)!r}: its list of tasks shows the ids"
    )


def _push_notification(task: TaskFold, config_id: str) -> PushNotification:
    kept = task.push_notifications.get(config_id)
    if kept is None:
        raise NotFound(
            f"task {printable(task.given_id)!r} has no push notifications {printable(config_id)!r}: the list of "
            "its push notifications shows the ids"
        )
    return kept


def _is_in_work(fold: ConversationFold, task: TaskFold) -> bool:
    """Return whether the answer that the task belongs to is still awaited."""
    awaited = [event_id for event_id in fold.requests if event_id not in fold.outcomes]
    return task.status in OPEN and any(
        fold.task_of(event_id) is task or task.causation_id == str(event_id) for event_id in awaited
    )
