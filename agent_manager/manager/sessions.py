"""The storing of an answer in the log, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent_manager.agents.answering import ArtifactUpdate, Context, StatusUpdate, TaskSeen, Update
from agent_manager.agents.recording import Recording, task_uuid
from agent_manager.agents.storable import fitting, storable
from agent_manager.manager.answers import Earlier, Outcome
from agent_manager.manager.errors import AnswerTaken
from agent_manager.manager.folding import ConversationFold
from agent_manager.manager.leases import Lease, Leases
from agent_manager.manager.views import Accepted
from agent_manager.manager.writing import Writer
from eventstore import MessageAnswered, Metadata, NewEvent
from eventstore.append import MAX_EVENTS
from eventstore.errors import ConversationIsDeleted, EventTooLarge
from eventstore.eventdata import TaskStatus
from eventstore.ids import derived_uuid
from eventstore.vocabulary import TaskStatusChanged

CUT_OFF = "the answering was cut off, and the message was answered anew"


class LogSession:
    """Appends what an agent says to the conversation that it answers in.

    No two sessions of one message can both store an answer, whatever becomes of their leases. Each append expects the
    version up to which the session knows the conversation. Before it appends it compares the number of events that are
    caused by the message with those that it knows: what was there when it began, and what it has appended itself. If
    another session has appended one, this one has either seen that event, and ends, or expects a version that is in the
    past, and is refused.

    Args:
        fold: the conversation, at or after the version at which the lease was taken.
        earlier: what an answering that was cut off has left there.
        answering: held until the session is released.
    """

    def __init__(
        self,
        writer: Writer,
        leases: Leases,
        lease: Lease,
        accepted: Accepted,
        context: Context,
        recording: Recording,
        fold: ConversationFold,
        earlier: Earlier | None,
        answering: asyncio.Lock,
    ) -> None:
        self.accepted = accepted
        self.context = context
        self.earlier = earlier
        self._writer = writer
        self._leases = leases
        self._lease = lease
        self._recording = recording
        self._answering = answering
        self._known = fold.caused_by(accepted.event_id)
        self._unfinished = {task.given_id for task in fold.unfinished_tasks(accepted.event_id)}

    async def record(self, update: Update) -> None:
        """Store what the agent says, durably."""
        update = storable(update)
        match update:
            case TaskSeen(task):
                self._unfinished.discard(task["id"])
            case StatusUpdate() | ArtifactUpdate():
                self._unfinished.discard(update.task_id)
        events = self._recording.events_of(update)
        for start in range(0, len(events), MAX_EVENTS):
            await self._divide(events[start : start + MAX_EVENTS])

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """Store the outcome. Tasks of an answering that was cut off, of which the agent says nothing any more, end."""
        message, task_id = self.accepted.event_id, self._recording.task_id
        events = [] if error is None else self._recording.failed(error)
        scope = self._writer.tenant, self.accepted.conversation
        for left in {task_uuid(*scope, text) for text in self._unfinished} - ({task_id} if events else set()):
            failed = TaskStatusChanged(task_id=left, status=TaskStatus.FAILED, metadata={"error": error or CUT_OFF})
            events.append(NewEvent(failed, actor="system", metadata=Metadata(causation_id=str(message))))
        answered = MessageAnswered(message_id=message, outcome=outcome, error=error, task_id=task_id)
        try:
            await self._append([*events, answered_event(answered)])
        except ConversationIsDeleted:  # its tasks stay as they are
            await self._append([answered_event(answered)])

    async def release(self) -> None:
        """Let others answer, if it was not finished."""
        self._leases.release(self._lease)
        self._answering.release()

    async def _divide(self, events: Sequence[NewEvent]) -> None:
        """Append events, those that are too large in several."""
        try:
            await self._append(events)
        except EventTooLarge as error:
            for event in events:
                await self._append(fitting(event, error.limit))

    async def _append(self, events: Sequence[NewEvent]) -> None:
        await self._writer.add(self.accepted.conversation, events, self._check)
        self._known += len(events)

    def _check(self, fold: ConversationFold) -> None:
        message = self.accepted.event_id
        if self._lease.is_lost or message in fold.outcomes or fold.caused_by(message) != self._known:
            raise AnswerTaken(f"another process answers message {message}, or has answered it")


def answered_event(answered: MessageAnswered) -> NewEvent:
    """The event that ends the waiting of a message: there is but one of its id."""
    return NewEvent(answered, derived_uuid("answered", str(answered.message_id)), "system")
