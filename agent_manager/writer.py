"""Appends to conversations: messages become events, client ids become UUIDs.

A client that receives no response sends its message again, and A2A requires each sender to give each message its own id
(``messageId``). So a message that a client sends to be answered is stored once for its sender, id and body, in
whichever process the repetition arrives:

- The id of its event is derived from the ``messageId`` and a number: the first number, from 0, whose event does not
  exist yet. A repetition that sees the first message finds it under one of these ids. A repetition that does not see it
  yet derives the same id, or that of an earlier message; the log reports that the id is taken, and the writer reads the
  conversation again.
- A message without ``contextId`` begins a conversation, whose id is derived from the sender, the ``messageId`` and the
  body. So its repetition arrives in the same conversation.
- A message with the same id and another body is a further message: rejecting it would lose messages of a client that
  assigns ids badly.
- A message without ``messageId`` is never a repetition. Nor are messages of agents: their ids repeat.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any, TypeVar
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from agent_manager.a2a import FINAL, RESERVED, Json
from agent_manager.accepted_messages import Accepted
from agent_manager.agents.storable import without_large_parts
from agent_manager.conversation_cache import ConversationFoldCache
from agent_manager.conversation_fold import ConversationFold
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
from eventstore.errors import (
    EventIdConflict,
    EventTooLarge,
    InputError,
    InvalidEvent,
    InvalidId,
    WrongExpectedVersion,
    printable,
)
from eventstore.ids import assigned_uuid, derived_uuid, is_canonical_uuid
from eventstore.json_text import json_equal

T = TypeVar("T")

_MAX_CONFLICTS = 3

MakeEvents = Callable[[ConversationFold | None, int], list[NewEvent]]
"""A function that returns the events to append to a conversation. The number counts the ids that were taken."""


class Writer:
    """Appends to the conversations of a tenant."""

    def __init__(self, log: Log, cache: ConversationFoldCache) -> None:
        self.tenant = log.tenant
        self._log = log
        self._cache = cache
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def add_message(
        self,
        message: Json,
        conversation_id: str | None,
        *,
        awaits_answer: bool,
        name: str = "",
        event_id: UUID | None = None,
    ) -> Accepted:
        """Append a message, see :meth:`agent_manager.manager.Manager.accept`.

        A message that is too large has notes in place of its largest files.
        """

        async def add(message: Json, notes: Sequence[str]) -> Accepted:
            accepted = await self._add_message(message, conversation_id, awaits_answer, name, event_id)
            return replace(accepted, notes=tuple(notes))

        return await append_reduced(message, add)

    async def _add_message(
        self, message: Json, conversation_id: str | None, awaits_answer: bool, name: str, event_id: UUID | None
    ) -> Accepted:
        once = awaits_answer and (bool(message.get("messageId")) or event_id is not None)
        given_id = conversation_id or message.get("contextId")
        if not given_id:
            given_id = str(self._new_conversation_id(message) if once else uuid4())
            message = message | {"contextId": given_id}
        conversation = conversation_uuid(self.tenant, checked_id(given_id))
        stored = message
        known: UUID | None = None
        position = 0

        def make(fold: ConversationFold | None, taken: int) -> list[NewEvent]:
            nonlocal stored, known, position
            new_id = known = None
            if once:
                new_id, known = self._find_or_assign_id(conversation, message, fold, taken, event_id)
            if known is not None and fold is not None:
                stored, position = fold.messages[known], fold.requests[known].position
                return []
            may_continue = fold is not None and awaits_answer and not message.get("taskId")
            task_id = fold.open_task if fold is not None and may_continue else None
            stored = message if task_id is None else message | {"taskId": task_id}
            data = message_from_sent(stored, given_id=stored.get("messageId"))
            if awaits_answer:
                data = data.model_copy(update={"awaits_answer": True})
            event = NewEvent(data, actor=str(data.role))
            if new_id is None:
                event = self._with_message_id(conversation, event, fold, taken)
            else:
                event = replace(event, id=new_id)
            if fold is not None:
                return [event]
            created = ConversationCreated(name=name, given_id=None if is_canonical_uuid(given_id) else given_id)
            return [NewEvent(created), event]

        result = await self._append(conversation, make, depends_on_state=awaits_answer, once=once)
        if result is not None:
            known, position = result.events[-1].event_id, result.events[-1].position
        assert known is not None
        return Accepted(given_id, conversation, known, stored, position)

    async def add_answer(
        self, conversation_id: UUID, events: Sequence[NewEvent], check: Callable[[ConversationFold], None]
    ) -> None:
        """Append events of an answer to the state of the conversation that ``check`` accepted, and to no later one.

        Args:
            check: raises if the events must not be appended to the conversation.
        """

        def make(fold: ConversationFold | None, taken: int) -> list[NewEvent]:
            if fold is not None:
                check(fold)
            return [self._with_message_id(conversation_id, event, fold, taken) for event in events]

        # One at a time: of two appends that expect the same version, one would have to start again.
        async with self._locks.setdefault(conversation_id, asyncio.Lock()):
            await self._append(conversation_id, make, depends_on_state=True, retries_forever=True)

    async def ended_tasks(self, conversation_id: UUID) -> set[UUID]:
        """Return the tasks of a conversation that are in a final state."""
        fold = await self._cache.get(conversation_id)
        return set() if fold is None else {task.id for task in fold.tasks.values() if task.status in FINAL}

    async def append_once(self, conversation_id: UUID, event: NewEvent) -> None:
        """Append an event unless there is one of its id."""
        with suppress(EventIdConflict):
            result = await self._log.append(conversation_id, [event])
            self._cache.apply_appended(conversation_id, [event], result)

    async def _append(
        self,
        conversation_id: UUID,
        make: MakeEvents,
        *,
        depends_on_state: bool = False,
        retries_forever: bool = False,
        once: bool = False,
    ) -> AppendResult | None:
        """Append events made for the cached state of a conversation; if that is outdated, for the current state.

        Args:
            depends_on_state: whether the events depend on all earlier events, not only on ids.
            retries_forever: whether they do so after any number of conflicts with other writers.
            once: whether a message with the same id and content is not stored again.

        Returns:
            None if there is nothing to append.
        """
        taken = conflicts = 0
        correlation_id = str(uuid4())
        fold = self._cache.kept(conversation_id) or await self._cache.get(conversation_id)
        while True:
            version = fold.version if fold is not None else 0
            events = [
                replace(
                    event,
                    actor=self._log.actor or event.actor,
                    metadata=Metadata(**{"correlation_id": correlation_id} | event.metadata.to_content()),
                )
                for event in make(fold, taken)
            ]
            if not events:
                return None
            expected: ExpectedVersion = "NO_STREAM"
            if fold is not None:
                # After a few conflicts accept any version: otherwise each of many writers would wait for all others.
                is_strict = depends_on_state and (retries_forever or conflicts < _MAX_CONFLICTS)
                expected = fold.version if is_strict else ANY
            try:
                result = await self._log.append(conversation_id, events, expected)
                if once or result.events[-1].is_new or await self._is_own(conversation_id, result, correlation_id):
                    self._cache.apply_appended(conversation_id, events, result)
                    return result
                taken += 1  # an equal message under the same id exists, and this one is a further message
            except WrongExpectedVersion:
                conflicts += 1
            except EventIdConflict:
                taken += 1
            fold, before = await self._cache.get(conversation_id), fold
            if fold is not before or (once and fold is not None and fold.version != version):
                taken = 0

    async def _is_own(self, conversation_id: UUID, result: AppendResult, correlation_id: str) -> bool:
        """Return whether an event that existed already is from an earlier attempt whose connection was lost."""
        before = result.events[-1].version - 1
        [event, *_] = await self._log.events_of({conversation_id: before})
        return event.metadata.correlation_id == correlation_id

    def _new_conversation_id(self, message: Json) -> UUID:
        """Return the id of the conversation that a message without a context begins."""
        body = {name: value for name, value in message.items() if name != "contextId"}
        try:
            text = json.dumps(body, sort_keys=True).encode()
        except (TypeError, ValueError, RecursionError):
            return uuid4()  # the message cannot be stored: the append raises the error
        return derived_uuid("context", self.tenant, self._log.user, self._log.actor, sha256(text).hexdigest())

    def _find_or_assign_id(
        self, conversation_id: UUID, message: Json, fold: ConversationFold | None, taken: int, given: UUID | None
    ) -> tuple[UUID, UUID | None]:
        """Return an id for the event of a client's message, and the id of the event that already holds the message.

        Args:
            taken: number of ids that are taken by events that are not messages.
            given: the id of a message that has no ``messageId``.

        Raises:
            EventIdConflict: another event has the given id.
        """
        actor = self._log.actor or str(message_from_sent(message).role)
        message_id = message.get("messageId")
        for number in count():
            event_id = given
            if message_id or event_id is None:
                event_id = assigned_uuid(self.tenant, conversation_id, "message", message_id or "", number)
            elif number or taken:
                raise EventIdConflict(conversation_id, given)
            stored = None if fold is None else fold.messages.get(event_id)
            if fold is not None and stored is not None:
                request = fold.requests.get(event_id)
                if (request.actor if request is not None else "") == actor and _is_repetition(stored, message):
                    return event_id, event_id
            elif taken == 0:
                return event_id, None
            else:
                taken -= 1
        raise AssertionError("count() does not end")

    def _with_message_id(
        self, conversation_id: UUID, event: NewEvent, fold: ConversationFold | None, taken: int
    ) -> NewEvent:
        """Return a message's event with an id derived from its ``messageId`` and the number of earlier ones."""
        message_id = event.data.given_id if isinstance(event.data, MessageAdded) else None
        if not message_id:
            return event
        number = taken + (fold.message_count(message_id) if fold is not None else 0)
        return replace(event, id=assigned_uuid(self.tenant, conversation_id, "message", message_id, number))


def _is_repetition(stored: Json, message: Json) -> bool:
    """Return whether a message equals a stored one, apart from ids that the manager added to that."""
    added = {name for name in ("contextId", "taskId") if not message.get(name)}
    return json_equal(
        *({name: value for name, value in each.items() if name not in added} for each in (stored, message))
    )


async def append_reduced(message: Json, append: Callable[[Json, Sequence[str]], Awaitable[T]]) -> T:
    """Append a message; if it is too large, with notes in place of its largest files.

    Args:
        append: appends a message with these notes in it.
    """
    try:
        return await append(message, ())
    except EventTooLarge as error:
        smaller, notes = without_large_parts(message, error.size - error.limit, error.limit)
        if not notes:
            raise
    return await append(smaller, notes)


def checked_message(message: Any) -> Json:
    """Return a message if it is an object with valid ids; its other members are checked by the append.

    Raises:
        InvalidEvent: the message is not an object, or one of its ids is not a text.
    """
    if not isinstance(message, dict):
        raise InvalidEvent("message", f"is a {type(message).__name__}: give the message as a JSON object")
    inner = next((name for name in ("message", "request", "params") if isinstance(message.get(name), dict)), None)
    if "role" not in message and inner is not None:
        raise InvalidEvent("message", f"is a request that contains a message: send its member {inner!r} alone")
    for name in ("messageId", "contextId", "taskId"):
        if not isinstance(message.get(name), str | None):
            raise InvalidEvent(f"message.{name}", f"{message[name]!r:.80} is not a text")
    return message


def checked_id(text: str) -> str:
    """Return the id of a conversation if a client may use it.

    Raises:
        InputError: the id is not a text, or is reserved.
    """
    if not isinstance(text, str):
        raise InvalidId(f"a conversation's id is a {type(text).__name__}: give a text")
    if text.startswith(RESERVED):
        raise InputError(
            f"conversation {printable(text)!r}: ids that begin with {RESERVED!r} are reserved: choose another"
        )
    return text
