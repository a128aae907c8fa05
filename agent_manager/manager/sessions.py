"""The storing of an answer in the log, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent_manager.agents.answering import Update
from agent_manager.agents.recording import Recording
from agent_manager.agents.storable import fitting, storable
from agent_manager.manager.answers import Outcome
from agent_manager.manager.views import Accepted
from agent_manager.manager.writing import Writer
from eventstore import MessageAnswered, NewEvent
from eventstore.append import MAX_EVENTS
from eventstore.errors import EventTooLarge
from eventstore.ids import derived_uuid


class LogSession:
    """Appends what an agent says to the conversation that it answers in.

    Args:
        lock: held until it is released.
    """

    def __init__(self, writer: Writer, accepted: Accepted, recording: Recording, lock: asyncio.Lock) -> None:
        self._writer = writer
        self._accepted = accepted
        self._recording = recording
        self._lock = lock

    async def record(self, update: Update) -> None:
        """Stores what the agent says, durably."""
        events = self._recording.events_of(storable(update))
        for start in range(0, len(events), MAX_EVENTS):
            await self._add(events[start : start + MAX_EVENTS])

    async def _add(self, events: Sequence[NewEvent]) -> None:
        try:
            await self._writer.add(self._accepted.conversation, events)
        except EventTooLarge as error:
            for event in events:
                await self._writer.add(self._accepted.conversation, fitting(event, error.limit))

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """The message waits no longer. Of two that answered it at the same time, the first to say so counts."""
        if error is not None:
            await self._writer.add(self._accepted.conversation, self._recording.failed(error))
        message, task_id = self._accepted.event_id, self._recording.task_id
        answered = MessageAnswered(message_id=message, outcome=outcome, error=error, task_id=task_id)
        await self._writer.append_once(self._accepted.conversation, answered_event(answered))

    async def release(self) -> None:
        """Lets others answer, where it was not finished."""
        self._lock.release()


def answered_event(answered: MessageAnswered) -> NewEvent:
    """The event that ends the waiting of a message: there is but one of its id."""
    return NewEvent(answered, derived_uuid("answered", str(answered.message_id)), "system")
