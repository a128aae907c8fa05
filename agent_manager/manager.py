"""The asynchronous manager: conversations, messages, tasks and agents as plain A2A JSON, in any storage.

An agent keeps its memory by ``contextId`` and ``taskId``, and serves every client that names them. Both are part of a
message, so its author could name another conversation and receive answers out of that one, in spite of every check of
the store. So a message is stored as it was written, but the ids in what the agent receives are set here
(:func:`_addressed`).

Every message names the conversation as its ``contextId``: without one, an agent begins a new context. An agent that
named its own context receives that instead, see :meth:`agent_manager.agents.agent.Context.addressed_to`. A message
without ``messageId``, which A2A requires, is sent with the id of its event.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, Self, cast
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from agent_manager.a2a import (
    Json,
    Version,
    agent_role,
    parts_text,
    readable_state,
    state_name,
    task_to_wire,
    text_part,
    version_of,
)
from agent_manager.agent_registry import AgentRegistry
from agent_manager.agents.agent import Answer, Context, TaskSnapshot
from agent_manager.agents.recorder import Recording
from agent_manager.answering import (
    Answered,
    AnswerSession,
    InterruptedAnswer,
    Lease,
    Leases,
    answer_once,
    answered_event,
)
from agent_manager.conversation import Accepted, ConversationFold, ConversationView, EventView, Pending
from agent_manager.conversation_cache import MAX_BYTES, ConversationFoldCache
from agent_manager.errors import AnswerFailed, AnswerTaken, ManagerClosed
from agent_manager.storage import ClosableLog, Key, LeaseStatus, Log, PendingRow
from agent_manager.writer import Writer, checked_id, checked_message
from eventstore import (
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    ConversationRenamed,
    Event,
    EventData,
    MessageAdded,
    MessageAnswered,
    NewEvent,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskStatusChanged,
    conversation_uuid,
    sent_message,
)
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import ConversationIsDeleted, InputError, NotFound, WrongExpectedVersion, printable
from eventstore.ids import is_canonical_uuid

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between checks of a message that another process is answering."""


class Manager:
    """Conversations of one tenant, for the coroutines of one event loop.

    Reads contain everything that is in the log when they begin; they do not wait for the workers. Conversations are
    named by the ids that their clients gave.

    After ``async with``, calls raise ManagerClosed until the manager is entered again.

    Args:
        log: the storage.
        answer: the agent that answers messages; without one, messages get no reply.
        fold_bytes: approximate size of the contents of cached conversations.
    """

    def __init__(self, log: Log, answer: Answer | None = None, fold_bytes: int = MAX_BYTES) -> None:
        self.tenant = log.tenant
        self.agent = answer
        self._closable = ClosableLog(log)
        self._log = log = cast(Log, self._closable)
        self._cache = ConversationFoldCache(log, fold_bytes)
        self._writer = Writer(log, self._cache)
        self._registry = AgentRegistry(log, self._cache)
        self._leases = Leases(log)
        self._answers: dict[Key, asyncio.Task[Answered]] = {}
        self._session_locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        self._closable.is_closed = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait(list(self._answers.values()))  # those messages stay pending
        await self._leases.close()
        self._closable.is_closed = True

    # Conversations

    async def create_conversation(self, name: str = "", conversation_id: str | None = None) -> ConversationView:
        """Begin a conversation; return the existing one if there is one of this id.

        Raises:
            ConversationIsDeleted: the existing one is deleted.
            InputError: the name is too long, or name or id cannot be stored.
        """
        given_id = str(uuid4()) if conversation_id is None else checked_id(conversation_id)
        uuid = conversation_uuid(self.tenant, given_id)
        created = ConversationCreated(name=name, given_id=None if is_canonical_uuid(given_id) else given_id)
        with suppress(WrongExpectedVersion):  # the conversation exists
            await self._log.append(uuid, [NewEvent(created, actor="user")], expected="NO_STREAM")
        return (await self._existing(given_id)).view

    async def rename_conversation(self, conversation_id: str, name: str) -> ConversationView:
        """Rename a conversation.

        Raises:
            NotFound: there is no such conversation.
            InputError: the name is longer than 255 characters, or cannot be stored.
        """
        return await self._change(conversation_id, ConversationRenamed(name=name))

    async def archive_conversation(self, conversation_id: str) -> ConversationView:
        """Archive a conversation: it is no longer active. Raises NotFound."""
        return await self._change(conversation_id, ConversationArchived())

    async def reactivate_conversation(self, conversation_id: str) -> ConversationView:
        """Reactivate a conversation: it is active, and no longer hidden. Raises NotFound."""
        return await self._change(conversation_id, ConversationReactivated())

    async def delete_conversation(self, conversation_id: str) -> ConversationView:
        """Delete a conversation: lists hide it, and it rejects events until it is reactivated; nothing is lost.

        Deleting it again changes nothing. Raises NotFound.
        """
        with suppress(ConversationIsDeleted):
            return await self._change(conversation_id, ConversationDeleted())
        return (await self._existing(conversation_id)).view

    async def get_conversation(self, conversation_id: str) -> ConversationView | None:
        """Return a conversation, hidden or not; None if there is none."""
        fold = await self._fold(conversation_id)
        return None if fold is None else fold.view

    async def conversations(
        self, *, include_archived: bool = True, include_deleted: bool = False
    ) -> list[ConversationView]:
        """Return all conversations, in the order in which they began."""
        folds = await self._cache.all_of(await self._log.conversations())
        views = [fold.view for fold in folds.values()]
        return [v for v in views if (include_archived or v.is_active) and (include_deleted or not v.is_deleted)]

    async def versions(self) -> dict[UUID, int]:
        """Return the versions of all conversations, in the order in which they began."""
        return await self._log.conversations()

    def folds(self, versions: Mapping[UUID, int | None]) -> AsyncIterator[ConversationFold]:
        """Yield conversations at these versions or later, in the order given, without caching them."""
        return self._cache.each(versions, keep=False)

    # Messages

    async def messages(self, conversation_id: str) -> list[Json]:
        """Return the messages of a conversation as they were sent, oldest first; none if it does not exist."""
        fold = await self._fold(conversation_id)
        return [] if fold is None else list(fold.messages.values())

    async def save_message(self, message: Json, conversation_id: str | None = None) -> Json:
        """Store a message that awaits no answer, in the same conversation as :meth:`accept`; return it as stored."""
        stored = await self._writer.add_message(checked_message(message), conversation_id, awaits_answer=False)
        return stored.message

    async def accept(
        self, message: Json, conversation_id: str | None = None, *, event_id: UUID | None = None
    ) -> Accepted:
        """Store a message that awaits an answer. It is durable when this returns.

        The message is added to ``conversation_id``, else to the conversation of its ``contextId``, else to a new one,
        whose id it then contains. If the conversation has an open task, the message continues it.

        A message that the client has sent before, with the same ``messageId`` and body, is not stored again: the one
        accepted then is returned.

        Args:
            event_id: identifies repetitions of a message that has no ``messageId``.

        Raises:
            InputError: the message cannot be stored.
            ConversationIsDeleted: the conversation is deleted.
        """
        return await self._writer.add_message(
            checked_message(message), conversation_id, awaits_answer=True, event_id=event_id
        )

    async def send_message(self, conversation_id: str, message: Json) -> Json | None:
        """Accept a message and answer it; return the reply, None if the agent sends none.

        Raises:
            InputError: the message cannot be stored.
            AnswerFailed: the agent failed.
        """
        answered = await self._answer(await self.accept(message, conversation_id))
        if answered.error is not None:
            raise AnswerFailed(answered.error)
        return answered.reply

    async def answer(self, accepted: Accepted) -> Json | None:
        """Answer a message and store the updates as they arrive; return the last message of the reply.

        An error of the agent is stored as the outcome. A message that is answered already is not answered again; one
        that is being answered is waited for.
        """
        return (await self._answer(accepted)).reply

    async def pending(self) -> list[Pending]:
        """Return the messages that await an answer, of all processes, oldest first; none of a deleted conversation."""
        rows: defaultdict[UUID, list[PendingRow]] = defaultdict(list)
        for row in await self._log.pending():
            rows[row.conversation].append(row)
        pending = [
            _pending(row, fold)
            async for fold in self._cache.each(dict.fromkeys(rows))
            if not fold.is_deleted
            for row in rows[fold.id]
        ]
        return sorted(pending, key=attrgetter("position"))

    async def accepted(self, pending: Pending) -> Accepted:
        """Return a pending message, such as that of a killed process, so that it can be answered.

        Raises:
            NotFound: there is no such message.
        """
        return await self.stored(pending.conversation, pending.event_id, pending.position)

    async def stored(self, conversation: UUID, event_id: UUID, position: int) -> Accepted:
        """Return an accepted message by its place in the log.

        Raises:
            NotFound: there is no such message.
        """
        fold = await self._cache.get(conversation)
        if fold is None or event_id not in fold.messages:
            raise NotFound(f"conversation {conversation} has no message {event_id}")
        return Accepted.of(fold.given_id, fold.id, event_id, fold.messages[event_id], position)

    async def answer_pending(self) -> list[tuple[Pending, str | None]]:
        """Answer all pending messages, oldest first; return each with the error of its answer, if any.

        Messages that another process is answering are skipped. It takes some seconds to tell whether it still runs.
        """
        alive: set[UUID] = set()
        answered: list[tuple[Pending, str | None]] = []
        for pending in await self.pending():
            with suppress(AnswerTaken):
                answered.append((pending, (await self._answer(await self.accepted(pending), alive)).error))
        return answered

    async def abandon(self, pending: Pending) -> None:
        """End the waiting of a pending message without an answer."""
        await self._abandon(pending.conversation, pending.event_id, None)

    # Tasks, events, agents

    async def tasks(self, conversation_id: str | None = None) -> list[Json]:
        """Return the tasks of a conversation, or of all, as A2A JSON, in the order in which they began."""
        if conversation_id is not None:
            fold = await self._fold(conversation_id)
            return [] if fold is None else [fold.wire(task) for task in fold.tasks.values()]
        folds = await self._cache.all_of(await self._log.conversations_with_tasks())
        found = [(task.position, fold, task) for fold in folds.values() for task in fold.tasks.values()]
        return [fold.wire(task) for _, fold, task in sorted(found, key=itemgetter(0)) if not fold.is_deleted]

    async def events(self, *, after: int = 0, limit: int | None = None) -> list[EventView]:
        """Return the events after a position, oldest first; those among the latest ``limit`` that are not deleted.

        Raises:
            InputError: one of the arguments is not a number, or is negative.
        """
        for name, value in (("after", after), ("limit", 0 if limit is None else limit)):
            if not isinstance(value, int) or value < 0:
                raise InputError(f"{name}: {value!r:.80} is not a number of 0 or more")
        events = await self._log.latest(after, limit)
        folds = self._cache.each({event.conversation_id: event.version for event in events})
        summaries = {fold.id: summary(fold) async for fold in folds}
        views = [
            event_view(event, conversation)
            for event in events
            if (conversation := summaries.get(event.conversation_id)) is not None and not conversation.is_deleted
        ]
        return [view for view in views if view is not None]

    async def position(self) -> int:
        """Return the position up to which the log is final: while it is the same, reads give the same results."""
        return await self._log.position()

    async def register_agent(self, url_or_card: str | Json, *, allow_private: bool = True) -> Json:
        """Register an agent by the URL of its card, or by the card itself; return the card.

        Args:
            allow_private: fetch a card also from an address that is not global: private, loopback, link-local.

        Raises:
            InputError: the URL is not valid, or the card names none.
            AgentUnreachable: the card could not be fetched.
        """
        return await self._registry.register(url_or_card, allow_private=allow_private)

    async def unregister_agent(self, url: str) -> None:
        """Remove the registration of an agent. Raises NotFound if none is registered under this URL."""
        await self._registry.unregister(url)

    async def agents(self) -> list[Json]:
        """Return the cards of the registered agents, in the order in which they were registered."""
        return await self._registry.cards()

    # Answers

    async def begin(self, accepted: Accepted, alive: set[UUID] | None = None) -> AnswerSession | None:
        """Begin to store an answer, when no other process answers; return None if it is stored already.

        Release the session afterwards.

        Args:
            alive: collects lease holders that were seen to renew their leases. With it, a message that one of them
                answers raises AnswerTaken; without it, this waits.
        """
        lock = self._session_locks.setdefault((accepted.conversation, accepted.event_id), asyncio.Lock())
        await lock.acquire()
        lease: Lease | None = None

        def release() -> None:
            if lease is not None:
                self._leases.release(lease)
            lock.release()

        try:
            lease = await self._take_lease(accepted, alive)
            session = None if lease is None else await self._session(accepted, lease, release)
        except BaseException:
            release()
            raise
        if session is None:
            release()
        return session

    async def reply_to(self, accepted: Accepted) -> Json | None:
        """Return the last message of the stored answer."""
        fold = await self._cache.get(accepted.conversation)
        return None if fold is None else fold.reply_to(accepted.event_id)

    async def _answer(self, accepted: Accepted, alive: set[UUID] | None = None) -> Answered:
        """Answer a message in a task that concurrent callers share."""
        key = accepted.conversation, accepted.event_id
        while True:
            task = self._answers.get(key)
            if task is None:
                begin, reply = partial(self.begin, accepted, alive), partial(self.reply_to, accepted)
                task = self._answers[key] = asyncio.create_task(answer_once(self.agent, begin, reply))
                task.add_done_callback(lambda _: self._answers.pop(key, None))
            try:
                return await asyncio.shield(task)  # a cancelled caller does not cancel the answer for the others
            except AnswerTaken:
                if alive is not None:
                    raise  # else the task was that of answer_pending, which does not wait
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if task.cancelled() and (current is None or not current.cancelling()):
                    raise ManagerClosed from None  # the answer was cancelled, not this caller
                raise

    async def _take_lease(self, accepted: Accepted, alive: set[UUID] | None) -> Lease | None:
        """Take the lease of a message when no other process has it; return None if it is answered meanwhile."""
        before: LeaseStatus | None = None
        pause = _FIRST_PAUSE
        while True:
            status = await self._leases.take((accepted.conversation, accepted.event_id))
            if isinstance(status, Lease):
                return status
            if status is None:
                continue
            if accepted.event_id in (await self._fold_at(accepted, status.version)).outcomes:
                return None
            if alive is not None:
                if before is not None and (before.holder, before.expires_at) != (status.holder, status.expires_at):
                    alive.add(status.holder)
                if status.holder in alive or status.expires_at is None:
                    raise AnswerTaken(f"another process is answering message {accepted.event_id}")
            before = status
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _session(self, accepted: Accepted, lease: Lease, on_release: Callable[[], None]) -> AnswerSession | None:
        fold = await self._fold_at(accepted, lease.version)
        if accepted.event_id in fold.outcomes:
            return None
        if fold.is_deleted:  # no agent is called for an answer that cannot be stored
            error = str(ConversationIsDeleted(accepted.conversation))
            await self._abandon(accepted.conversation, accepted.event_id, error)
            return None
        recording = Recording(
            self.tenant,
            accepted.conversation,
            answer=self.agent,
            description=parts_text(accepted.message.get("parts")),
            known_task=fold.recorded_task,
            causation_id=str(accepted.event_id),
        )
        interrupted: InterruptedAnswer | None = None
        if fold.caused_by(accepted.event_id):
            task = fold.task_of(accepted.event_id)
            wire = None if task is None else task_to_wire(task.row)
            interrupted = InterruptedAnswer(fold.reply_to(accepted.event_id), wire)
            if wire is not None:
                recording.events_of(TaskSnapshot(wire))  # stored already; later updates are compared with it
        addressed = _addressed(accepted, fold)
        context = await self._context(addressed)
        return AnswerSession(self._writer, lease, addressed, context, recording, fold, interrupted, on_release)

    async def _context(self, accepted: Accepted) -> Context:
        async def history() -> list[Json]:
            fold = await self._cache.get(accepted.conversation)
            return [] if fold is None else list(fold.messages.values())

        fold = self._cache.kept(accepted.conversation) or await self._existing(accepted.conversation_id)
        named = fold.contexts_of(accepted.task_id)
        uuids = {context: conversation_uuid(self.tenant, context) for context in named.values()}
        # No agent continues in the context of another conversation.
        others = await self._cache.all_of({uuid: None for uuid in uuids.values() if uuid != fold.id})
        contexts = {actor: c for actor, c in named.items() if uuids[c] != fold.id and uuids[c] not in others}
        agents = await self._registry.recent_cards()
        return Context(self.tenant, accepted.conversation_id, accepted.task_id, agents, history, contexts)

    async def _abandon(self, conversation: UUID, event_id: UUID, error: str | None) -> None:
        answered = MessageAnswered(message_id=event_id, outcome="abandoned", error=error)
        await self._writer.append_once(conversation, answered_event(answered))

    # Folds

    async def _fold(self, conversation_id: str) -> ConversationFold | None:
        return await self._cache.get(conversation_uuid(self.tenant, conversation_id))

    async def _fold_at(self, accepted: Accepted, version: int) -> ConversationFold:
        """Return the conversation of a message at a version or later."""
        fold = self._cache.kept(accepted.conversation)
        if fold is None or fold.version < version or accepted.event_id not in fold.messages:
            fold = await self._cache.get(accepted.conversation)
        if fold is None:
            raise NotFound(f"there is no conversation {accepted.conversation}")
        return fold

    async def _existing(self, conversation_id: str) -> ConversationFold:
        fold = await self._fold(conversation_id)
        if fold is None:
            raise NotFound(f"no conversation has the id {printable(conversation_id)!r}")
        return fold

    async def _change(self, conversation_id: str, event: EventData) -> ConversationView:
        fold = await self._existing(conversation_id)
        await self._log.append(fold.id, [NewEvent(event, actor="user")])
        return (await self._existing(conversation_id)).view


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
    task_id = accepted.task_id if accepted.task_id in tasks else None
    return replace(accepted, conversation_id=fold.given_id, task_id=task_id, message=message)


def _pending(row: PendingRow, fold: ConversationFold) -> Pending:
    task = fold.task_of(row.event_id)
    status = "" if task is None else task.status_text
    return Pending(fold.given_id, row.conversation, row.event_id, row.given_id or "", status, row.since, row.position)


class Summary(NamedTuple):
    """The facts about a conversation that lists of events need.

    Attributes:
        version: of the conversation to which the facts apply.
        given_id: as its client gave it.
        shape: the A2A version of its first message; None if it has no messages.
        tasks: the ids of its tasks as their agents gave them.
    """

    version: int
    given_id: str
    is_deleted: bool
    shape: Version | None
    tasks: dict[UUID, str]


def summary(fold: ConversationFold) -> Summary:
    """Return the summary of a conversation."""
    first = next(iter(fold.messages.values()), None)
    return Summary(
        fold.version,
        fold.given_id,
        fold.is_deleted,
        None if first is None else version_of(first),
        {task_id: task.given_id for task_id, task in fold.tasks.items()},
    )


def event_view(event: Event, conversation: Summary) -> EventView | None:
    """Return an event as a message: the one that was sent, or one made of a status or artifact; None for others."""
    match event.data:
        case MessageAdded() as data:
            content = sent_message(data)
        case TaskStatusChanged(message=message) if message is not None:
            content = message
        case TaskStatusChanged() | TaskCreated() as data:
            state = (data.extra or {}).get("state") if isinstance(data, TaskStatusChanged) else None
            version: Version = version_of({"status": {"state": state}})
            text = str(readable_state(state_name(data.status, version) if state is None else state))
            content = _agent_message(event, conversation, data.task_id, [text_part(text, version)], version)
        case TaskArtifactAdded() | TaskArtifactExtended() as data:
            has_kind = any(isinstance(part, dict) and "kind" in part for part in data.parts)
            content = _agent_message(event, conversation, data.task_id, data.parts, "0.3" if has_kind else "1.0")
        case _:
            return None
    return EventView(
        str(event.id), event.actor, event.event_type, conversation.given_id, content, event.occurred_at, event.position
    )


def _agent_message(event: Event, conversation: Summary, task_id: UUID, parts: list[Any], version: Version) -> Json:
    message: Json = {
        "role": agent_role(version),
        "parts": parts,
        "messageId": str(event.id),
        "contextId": conversation.given_id,
        "taskId": conversation.tasks[task_id],
    }
    return message | {"kind": "message"} if version == "0.3" else message
