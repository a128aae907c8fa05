"""Writing to the log: commands become events, client ids become UUIDs.

A client that gets no answer sends its message again, and A2A has each sender give each message an id of its own
(``messageId``). So a message that a client sends to be answered is stored once for its sender, id and body, in
whichever process the repetition arrives:

- The id of its event is derived from the ``messageId`` and a number: the first number, from 0, whose event is not there
  yet. A repetition that sees the first message finds it under one of these ids. One that does not see it yet derives
  the same id, or that of an earlier message; the log reports that it is taken, and the writer looks again.
- A message without ``contextId`` begins a conversation, whose id is derived from the sender, the ``messageId`` and the
  body. So its repetition arrives in the same conversation.
- Another body under the same id is a further message: refusing it would lose what a client says that counts badly.
- A message without ``messageId`` is never taken for a repetition. Nor is what agents say: their ids repeat.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from agent_manager.a2a import RESERVED
from agent_manager.conversation import Accepted, ConversationFold, Json
from agent_manager.conversation_cache import ConversationCache
from agent_manager.storage import Log
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
from eventstore.errors import EventIdConflict, InputError, InvalidEvent, InvalidId, WrongExpectedVersion, printable
from eventstore.ids import assigned_uuid, derived_uuid, is_canonical_uuid
from eventstore.json_text import equal

_CONFLICTS = 3

Make = Callable[[ConversationFold | None, int], list[NewEvent]]
"""The events to append to a conversation as it is; the number is that of ids which turned out to be taken."""


class Writer:
    """Appends to a tenant's conversations."""

    def __init__(self, log: Log, folds: ConversationCache) -> None:
        self.tenant = log.tenant
        self._log = log
        self._folds = folds
        self._adding: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def message(
        self, message: Json, conversation_id: str | None, *, awaits_answer: bool, event_id: UUID | None = None
    ) -> Accepted:
        """Stores a message. See :meth:`AsyncManager.accept`."""
        once = awaits_answer and (bool(message.get("messageId")) or event_id is not None)
        text = conversation_id or message.get("contextId")
        if not text:
            text = str(self._context_of(message) if once else uuid4())
            message = message | {"contextId": text}
        uuid = conversation_uuid(self.tenant, checked_id(text))
        stored = message
        known: UUID | None = None
        position = 0

        def make(fold: ConversationFold | None, taken: int) -> list[NewEvent]:
            nonlocal stored, known, position
            new_id, known = self._id_once(uuid, message, fold, taken, event_id) if once else (None, None)
            if known is not None and fold is not None:
                stored, (_, position) = fold.messages[known], fold.requests[known]
                return []
            continues = fold is not None and awaits_answer and not message.get("taskId")
            task_id = fold.open_task if fold is not None and continues else None
            stored = message if task_id is None else message | {"taskId": task_id}
            data = message_from_sent(stored, given_id=stored.get("messageId"))
            if awaits_answer:
                data = data.model_copy(update={"awaits_answer": True})
            said = NewEvent(data, actor=str(data.role))
            said = self._named(uuid, said, fold, taken) if new_id is None else replace(said, id=new_id)
            if fold is not None:
                return [said]
            return [NewEvent(ConversationCreated(given_id=None if is_canonical_uuid(text) else text)), said]

        result = await self._until_free(uuid, make, decides=awaits_answer, once=once)
        if result is not None:
            known, position = result.events[-1].event_id, result.events[-1].position
        assert known is not None
        task_id = stored.get("taskId")
        return Accepted(
            text,
            uuid,
            known,
            stored,
            stored.get("messageId") or "",
            task_id if isinstance(task_id, str) and task_id else None,
            position,
        )

    async def add(
        self, conversation_id: UUID, events: Sequence[NewEvent], check: Callable[[ConversationFold], None]
    ) -> None:
        """Append what an answer brings to the conversation as ``check`` has seen it, and to no later state of it.

        Args:
            check: raises if the conversation is in a state in which these events must not be appended.
        """

        def make(fold: ConversationFold | None, taken: int) -> list[NewEvent]:
            if fold is not None:
                check(fold)
            return [self._named(conversation_id, event, fold, taken) for event in events]

        # One at a time, because of two that append to the same version one has to begin again.
        async with self._adding.setdefault(conversation_id, asyncio.Lock()):
            await self._until_free(conversation_id, make, decides=True, always=True)

    async def append_once(self, conversation_id: UUID, event: NewEvent) -> bool:
        """Appends an event unless one of its id is there; says whether it did."""
        try:
            result = await self._log.append(conversation_id, [event])
        except EventIdConflict:
            return False
        self._folds.learn(conversation_id, [event], result)
        return result.events[0].is_new

    async def _until_free(
        self, conversation_id: UUID, make: Make, *, decides: bool = False, always: bool = False, once: bool = False
    ) -> AppendResult | None:
        """Append what fits the conversation as it is known; if that turns out to be old, as it is.

        Args:
            decides: whether what is made depends on all that was said before, not only on ids.
            always: whether it depends on that however often another writer was faster.
            once: whether what is stored already under the same id, with the same content, is not to be stored again.

        Returns:
            None if there is nothing to append.
        """
        taken = conflicts = 0
        mark = str(uuid4())
        fold = self._folds.kept(conversation_id) or await self._folds.get(conversation_id)
        while True:
            version = fold.version if fold is not None else 0
            events = [
                replace(
                    event,
                    actor=self._log.actor or event.actor,
                    metadata=Metadata(**{"correlation_id": mark} | event.metadata.to_content()),
                )
                for event in make(fold, taken)
            ]
            if not events:
                return None
            expected: ExpectedVersion = "NO_STREAM"
            if fold is not None:
                # Whoever was overtaken again and again lets it be: many write at once, and each would wait for all.
                expected = fold.version if decides and (always or conflicts < _CONFLICTS) else ANY
            try:
                result = await self._log.append(conversation_id, events, expected)
                if once or result.events[-1].is_new or await self._is_ours(conversation_id, result, mark):
                    self._folds.learn(conversation_id, events, result)
                    return result
                taken += 1  # the same message under the same id: a further one all the same
            except WrongExpectedVersion:
                conflicts += 1
            except EventIdConflict:
                taken += 1
            fold, before = await self._folds.get(conversation_id), fold
            if fold is not before or (once and fold is not None and fold.version != version):
                taken = 0

    async def _is_ours(self, conversation_id: UUID, result: AppendResult, mark: str) -> bool:
        """Whether an event that stood there already is that of an append of ours whose connection was lost."""
        before = result.events[-1].version - 1
        [event, *_] = await self._log.events_of({conversation_id: before})
        return event.metadata.correlation_id == mark

    def _context_of(self, message: Json) -> UUID:
        """The id of the conversation that a message without a context begins."""
        sent = {name: value for name, value in message.items() if name != "contextId"}
        try:
            body = json.dumps(sent, sort_keys=True).encode()
        except (TypeError, ValueError, RecursionError):
            return uuid4()  # it cannot be stored; the append says why
        return derived_uuid("context", self.tenant, self._log.user, self._log.actor, sha256(body).hexdigest())

    def _id_once(
        self, conversation_id: UUID, message: Json, fold: ConversationFold | None, taken: int, given: UUID | None
    ) -> tuple[UUID, UUID | None]:
        """The id for the event of a client's message, and that of the event which holds the same message already.

        Args:
            taken: ids that turned out to be taken by events that are no messages.
            given: the id of a message that has no ``messageId``.

        Raises:
            EventIdConflict: another event has the given id.
        """
        role = str(message_from_sent(message).role)
        actor = self._log.actor or role
        text = message.get("messageId")
        for number in count():
            event_id = given
            if text or event_id is None:
                event_id = assigned_uuid(self.tenant, conversation_id, "message", text or "", number)
            elif number or taken:
                raise EventIdConflict(conversation_id, given)
            stored = None if fold is None else fold.messages.get(event_id)
            if stored is None and taken == 0:
                return event_id, None
            if stored is None:
                taken -= 1
            elif fold is not None and fold.requests.get(event_id, ("", 0))[0] == actor and _is_same(stored, message):
                return event_id, event_id
        raise AssertionError("count() does not end")

    def _named(self, conversation_id: UUID, event: NewEvent, fold: ConversationFold | None, taken: int) -> NewEvent:
        """A message gets the id that its name and its place among those of the same name give it."""
        text = event.data.given_id if isinstance(event.data, MessageAdded) else None
        if not text:
            return event
        occurrence = taken + (fold.occurrences(text) if fold is not None else 0)
        return replace(event, id=assigned_uuid(self.tenant, conversation_id, "message", text, occurrence))


def _is_same(stored: Json, sent: Json) -> bool:
    """Whether a message is stored as it was sent, apart from ids that the manager added."""
    added = {name for name in ("contextId", "taskId") if not sent.get(name)}
    kept = [{name: value for name, value in one.items() if name not in added} for one in (stored, sent)]
    return equal(*kept)


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
        InputError: it is no text, or one of the manager's own.
    """
    if not isinstance(text, str):
        raise InvalidId(f"a conversation's id is a {type(text).__name__}: give a text")
    if text.startswith(RESERVED):
        raise InputError(
            f"conversation {printable(text)!r}: ids that begin with {RESERVED!r} are taken: choose another"
        )
    return text
