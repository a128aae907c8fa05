"""Writing to the log: ids for what clients named, and the same append again where a connection was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from agent_manager.agents.wire import RESERVED
from agent_manager.manager.folding import ConversationFold
from agent_manager.manager.folds import Folds
from agent_manager.manager.log import Log
from agent_manager.manager.views import Accepted, Json
from eventstore import (
    ANY,
    AppendResult,
    ConversationCreated,
    ExpectedVersion,
    MessageAdded,
    Metadata,
    NewEvent,
    conversation_uuid,
    message_from_sent,
)
from eventstore.errors import (
    ConnectionLost,
    EventIdConflict,
    InputError,
    InvalidEvent,
    ServerUnreachable,
    WrongExpectedVersion,
    printable,
)
from eventstore.ids import assigned_uuid, is_canonical_uuid

_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each further try of an append whose connection was lost."""

_CONFLICTS = 3

Make = Callable[[ConversationFold | None, int], list[NewEvent]]
"""The events to append to a conversation as it is; the number is that of ids which turned out to be taken."""


class Writer:
    """Appends to a tenant's conversations."""

    def __init__(self, log: Log, folds: Folds) -> None:
        self.tenant = log.tenant
        self._log = log
        self._folds = folds

    async def message(self, message: Json, conversation_id: str | None, *, awaits_answer: bool) -> Accepted:
        """Stores a message. See :meth:`AsyncManager.accept`."""
        text = conversation_id or message.get("contextId")
        if not text:
            text = str(uuid4())
            message = message | {"contextId": text}
        uuid = conversation_uuid(self.tenant, checked_id(text))
        stored = message

        def make(fold: ConversationFold | None, taken: int) -> list[NewEvent]:
            nonlocal stored
            continues = fold is not None and awaits_answer and not message.get("taskId")
            task_id = fold.open_task if fold is not None and continues else None
            stored = message if task_id is None else message | {"taskId": task_id}
            data = message_from_sent(stored, given_id=stored.get("messageId"))
            if awaits_answer:
                data = data.model_copy(update={"awaits_answer": True})
            said = self._named(uuid, NewEvent(data, actor=str(data.role)), fold, taken)
            if fold is not None:
                return [said]
            return [NewEvent(ConversationCreated(given_id=None if is_canonical_uuid(text) else text)), said]

        result = await self._until_free(uuid, make, decides=awaits_answer)
        place = result.events[-1]
        task_id = stored.get("taskId")
        return Accepted(
            text,
            uuid,
            place.event_id,
            stored,
            stored.get("messageId") or "",
            task_id if isinstance(task_id, str) and task_id else None,
            place.position,
        )

    async def add(self, conversation_id: UUID, events: Sequence[NewEvent]) -> None:
        """Appends what an answer brings."""

        def make(fold: ConversationFold | None, taken: int) -> list[NewEvent]:
            return [self._named(conversation_id, event, fold, taken) for event in events]

        if events:
            await self._until_free(conversation_id, make)

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """Appends events that have ids for good; again where the connection was lost.

        Raises:
            ConnectionLost: it was lost again and again.
        """
        for pause in (*_PAUSES, None):
            try:
                return await self._log.append(conversation_id, events, expected)
            except (ConnectionLost, ServerUnreachable):
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("the last round returns or raises")

    async def append_once(self, conversation_id: UUID, event: NewEvent) -> bool:
        """Appends an event unless one of its id is there; says whether it did."""
        try:
            result = await self.append(conversation_id, [event])
        except EventIdConflict:
            return False
        self._folds.learn(conversation_id, [event], result)
        return result.events[0].is_new

    async def _until_free(self, conversation_id: UUID, make: Make, *, decides: bool = False) -> AppendResult:
        """Appends what fits the conversation as it is known; where that turns out to be old, as it is.

        Args:
            decides: whether what is made depends on all that was said before, not only on ids.
        """
        taken = conflicts = 0
        mark = str(uuid4())
        fold = self._folds.kept(conversation_id) or await self._folds.get(conversation_id)
        while True:
            events = [
                replace(event, metadata=Metadata(**{"correlation_id": mark} | event.metadata.to_content()))
                for event in make(fold, taken)
            ]
            expected: ExpectedVersion = "NO_STREAM"
            if fold is not None:
                # Whoever was overtaken again and again lets it be: many write at once, and each would wait for all.
                expected = fold.version if decides and conflicts < _CONFLICTS else ANY
            try:
                result = await self.append(conversation_id, events, expected)
                if result.events[-1].is_new or await self._is_ours(conversation_id, result, mark):
                    self._folds.learn(conversation_id, events, result)
                    return result
                taken += 1  # the same message under the same id: a further one all the same
            except WrongExpectedVersion:
                conflicts += 1
            except EventIdConflict:
                taken += 1
            fold, before = await self._folds.get(conversation_id), fold
            if fold is not before:
                taken = 0

    async def _is_ours(self, conversation_id: UUID, result: AppendResult, mark: str) -> bool:
        """Whether an event that stood there already is that of an append of ours whose connection was lost."""
        before = result.events[-1].version - 1
        [event, *_] = await self._log.events_of({conversation_id: before})
        return event.metadata.correlation_id == mark

    def _named(self, conversation_id: UUID, event: NewEvent, fold: ConversationFold | None, taken: int) -> NewEvent:
        """A message gets the id that its name and its place among those of the same name give it."""
        text = event.data.given_id if isinstance(event.data, MessageAdded) else None
        if not text:
            return event
        occurrence = taken + (fold.occurrences(text) if fold is not None else 0)
        return replace(event, id=assigned_uuid(self.tenant, conversation_id, "message", text, occurrence))


def checked_message(message: Any) -> Json:
    """A message as it may be stored; the rest is checked when it is.

    Raises:
        InvalidEvent: it is no object, or its ids are no texts.
    """
    if not isinstance(message, dict):
        raise InvalidEvent("message", f"is a {type(message).__name__}: give the message as a JSON object")
    for name in ("messageId", "contextId", "taskId"):
        if not isinstance(message.get(name), str | None):
            raise InvalidEvent(f"message.{name}", f"{message[name]!r:.80} is no text")
    return message


def checked_id(text: str) -> str:
    """The id of a conversation that a client may use.

    Raises:
        InputError: it is one of the manager's own.
    """
    if text.startswith(RESERVED):
        raise InputError(
            f"conversation {printable(text)!r}: ids that begin with {RESERVED!r} are taken: choose another"
        )
    return text
