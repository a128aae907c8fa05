"""The storing of an agent's answer to one message.

An agent keeps its memory by ``contextId`` and ``taskId``, and serves every client that names them. Both are part of a
message, so its author could name another conversation and receive answers out of that one, in spite of every check of
the store. So a message is stored as it was written, but the ids in what the agent receives are set here
(:func:`_addressed`).

Every message names the conversation as its ``contextId``: without one, an agent begins a new context. An agent that
named its own context receives that instead, see :meth:`agent_manager.agents.agent.Context.addressed_to`. A message
without ``messageId``, which A2A requires, is sent with the id of its event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from agent_manager.a2a import parts_text, task_to_wire, without_secrets
from agent_manager.accepted_messages import Accepted
from agent_manager.agents.agent import Answer, ArtifactUpdate, Context, StatusUpdate, TaskSnapshot, TaskTracker, Update
from agent_manager.agents.recorder import Recording, merged, task_failed, task_uuid
from agent_manager.agents.storable import notes_in, split_event, storable
from agent_manager.conversation_fold import ConversationFold
from agent_manager.errors import AnswerTaken, InvalidUpdate
from agent_manager.leases import Lease
from agent_manager.writer import Writer
from eventstore import MessageAnswered, Metadata, NewEvent, TaskPushNotificationSet
from eventstore.append import MAX_EVENTS
from eventstore.errors import ConversationIsDeleted, EventTooLarge, InvalidEvent, printable
from eventstore.ids import derived_uuid

Outcome: TypeAlias = Literal["answered", "failed", "abandoned"]

MAX_REASON_CHARACTERS = 500
"""The longest reason of a failure, or note on an answer, that is stored with the outcome."""

_INTERRUPTED = "the answer was interrupted, and the message was answered again"


class AnswerSession:
    """The storing of one answer in the conversation of its message.

    Two sessions of one message cannot both store an answer, whatever happens to their leases. Each append expects the
    version up to which the session has read the conversation. Before it appends, it compares the number of events that
    name the message as their cause with those that it knows: the ones that existed when it began, and its own. If
    another session has appended one, this session has either read that event, and ends, or expects an outdated version,
    and its append is rejected.

    Args:
        fold: the conversation, at or after the version at which the lease was taken.
        on_release: called at the end.

    Attributes:
        accepted: the message as it is sent to the agent.
        context: the context that the agent receives.
        reply: the last message of an answer that was interrupted, such as by the end of its process.
        task: the last task of that answer.
    """

    def __init__(
        self,
        writer: Writer,
        agent: Answer | None,
        lease: Lease,
        accepted: Accepted,
        fold: ConversationFold,
        on_release: Callable[[], None],
    ) -> None:
        self.accepted = _addressed(accepted, fold)
        self.context = Context()
        self.reply = fold.reply_to(accepted.event_id)
        self.task = TaskTracker()
        self._writer = writer
        self._lease = lease
        self._on_release = on_release
        self._notes = list(accepted.notes)
        self._sender = fold.requests[accepted.event_id].actor
        self._push_notification = accepted.push_notification
        self._known_events = fold.caused_by(accepted.event_id)
        self._unfinished = {task.given_id for task in fold.unfinished_tasks(accepted.event_id)}
        self._recording = Recording(
            writer.tenant,
            accepted.conversation,
            answer=agent,
            description=parts_text(accepted.message.get("parts")),
            known_task=fold.recorded_task,
            causation_id=str(accepted.event_id),
        )
        if (task := fold.task_of(accepted.event_id)) is not None:
            snapshot = TaskSnapshot(task_to_wire(task.row))
            self.task.apply(snapshot)
            self._recording.events_of(snapshot)  # stored already; later updates are compared with it

    async def record(self, updates: Iterable[Update | InvalidUpdate]) -> Exception | None:
        """Store updates, durably; return the error of the first that cannot be stored.

        Raises:
            AnswerTaken: another process is answering, or has answered.
        """
        problems: list[Exception] = []
        events: list[NewEvent] = []
        for update in updates:
            try:
                events += self._events_of(update)
            except (InvalidUpdate, InvalidEvent) as problem:
                problems.append(problem)
        events = merged(events)
        for start in range(0, len(events), MAX_EVENTS):
            part = events[start : start + MAX_EVENTS]
            try:
                await self._append(part)
            except (InvalidEvent, EventTooLarge):
                for event in part:
                    try:
                        await self._append_divided(event)
                    except (InvalidEvent, EventTooLarge) as problem:
                        problems.append(problem)
        return problems[0] if problems else None

    def _events_of(self, given: Update | InvalidUpdate) -> list[NewEvent]:
        if isinstance(given, InvalidUpdate):
            raise given
        update = storable(given)
        match update:
            case TaskSnapshot(task):
                self._unfinished.discard(task["id"])
            case StatusUpdate() | ArtifactUpdate():
                self._unfinished.discard(update.task_id)
        return [*self._recording.events_of(update), *self._push_notification_events()]

    def _push_notification_events(self) -> list[NewEvent]:
        """Return the event for the setting that came with the message, once the answer has a task."""
        config, task_id = self._push_notification, self._recording.task_id
        if config is None or task_id is None:
            return []
        self._push_notification = None
        event = TaskPushNotificationSet(task_id=task_id, config_id=config["id"], config=without_secrets(config))
        cause = Metadata(causation_id=str(self.accepted.event_id))
        return [NewEvent(event, actor=self._sender, metadata=cause)]

    async def _append_divided(self, event: NewEvent) -> None:
        try:
            await self._append([event])
        except EventTooLarge as error:
            parts = split_event(event, error.limit)
            await self._append(parts)
            self._notes += notes_in(parts)

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """Store the outcome, so that the message is no longer pending; if it is answered, what was not stored of it.

        Tasks of an interrupted answer that this one did not mention have failed.

        Raises:
            AnswerTaken: another process is answering, or has answered.
        """
        message, task_id = self.accepted.event_id, self._recording.task_id
        events = [] if error is None else self._recording.failed(error)
        unfinished = {
            task_uuid(self._writer.tenant, self.accepted.conversation, given_id) for given_id in self._unfinished
        }
        for each in unfinished - ({task_id} if events else set()):
            failed = task_failed(each, error or _INTERRUPTED, str(message))
            events.append(NewEvent(failed, actor="system", metadata=Metadata(causation_id=str(message))))
        if events:  # a task that was cancelled meanwhile has not failed
            ended = await self._writer.ended_tasks(self.accepted.conversation)
            events = [event for event in events if getattr(event.data, "task_id", None) not in ended]
        error = error or printable(" ".join(dict.fromkeys(self._notes)), MAX_REASON_CHARACTERS) or None
        answered = answered_event(MessageAnswered(message_id=message, outcome=outcome, error=error, task_id=task_id))
        try:
            await self._append([*events, answered])
        except ConversationIsDeleted:  # its tasks stay as they are
            await self._append([answered])

    async def release(self) -> None:
        """Allow other sessions of the message."""
        self._on_release()

    async def _append(self, events: Sequence[NewEvent]) -> None:
        await self._writer.add_answer(self.accepted.conversation, events, self._check)
        self._known_events += len(events)

    def _check(self, fold: ConversationFold) -> None:
        message = self.accepted.event_id
        if self._lease.is_lost or message in fold.outcomes or fold.caused_by(message) != self._known_events:
            raise AnswerTaken(f"another process answers message {message}, or has answered it")


def answered_event(answered: MessageAnswered) -> NewEvent:
    """Return the event that ends the waiting of a message. Its id is derived, so it can be stored only once."""
    return NewEvent(answered, derived_uuid("answered", str(answered.message_id)), "system")


def _addressed(accepted: Accepted, fold: ConversationFold) -> Accepted:
    """Return a message as its agent receives it: it refers to its own conversation and tasks, and to no others."""
    tasks = {task.given_id for task in fold.tasks.values()}
    message = accepted.message | {"contextId": fold.given_id}
    if not message.get("messageId"):
        message["messageId"] = str(accepted.event_id)
    if message.get("taskId") not in tasks:
        message.pop("taskId", None)
    references = message.get("referenceTaskIds")
    if isinstance(references, list):
        message["referenceTaskIds"] = [task for task in references if isinstance(task, str) and task in tasks]
    return replace(accepted, conversation_id=fold.given_id, message=message)
