"""The asynchronous manager: conversations, messages, tasks and agents as plain A2A JSON, on any storage.

An agent keeps conversations by ``contextId`` and ``taskId``, and serves every client that names them. Both are part of
a message, so its author could name another conversation and be answered out of that one, past every check of the
store. What is stored stays as it was written; the ids in what the agent is sent are set here.

Every message carries the conversation's name as its ``contextId``: without one an agent begins a new context. An agent
that has named a context of its own is sent that instead, see :meth:`agent_manager.agents.agent.Context.sent`. A
message without ``messageId``, which A2A demands, is sent with the id of its event.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, Self, cast
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from agent_manager.a2a import (
    Version,
    agent_role,
    parts_text,
    readable_state,
    state_name,
    task_to_wire,
    text_part,
    version_of,
)
from agent_manager.agent_registry import Registry
from agent_manager.agents.agent import Answer, Context, TaskSnapshot
from agent_manager.agents.recorder import Recording
from agent_manager.answering import (
    Answered,
    InterruptedAnswer,
    Lease,
    Leases,
    LogSession,
    Session,
    answer_once,
    answered_event,
)
from agent_manager.conversation import Accepted, ConversationFold, ConversationView, EventView, Json, Pending
from agent_manager.conversation_cache import MAX_BYTES, ConversationCache
from agent_manager.errors import AnswerFailed, AnswerTaken, ManagerClosed
from agent_manager.storage import ClosableLog, LeaseStatus, Log, PendingRow
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

# What an agent is sent names the conversation that it was sent in, and no other


def addressed(accepted: Accepted, fold: ConversationFold) -> Accepted:
    """Return the message as its agent may be sent it.

    Args:
        fold: the conversation, whose tasks may be named.
    """
    tasks = {task.given_id for task in fold.tasks.values()}
    message = accepted.message | {"contextId": fold.given_id}
    if not message.get("messageId"):
        message["messageId"] = str(accepted.event_id)
    if message.get("taskId") not in tasks:
        message.pop("taskId", None)
    others = message.get("referenceTaskIds")
    if isinstance(others, list):
        message["referenceTaskIds"] = [task for task in others if isinstance(task, str) and task in tasks]
    task_id = accepted.task_id if accepted.task_id in tasks else None
    return replace(accepted, conversation_id=fold.given_id, task_id=task_id, message=message)


# Events of the log as the messages that A2A applications list: what was sent, and what agents said of their tasks


class Summary(NamedTuple):
    """What lists of events need to know of a conversation.

    Attributes:
        version: of the conversation that this is true of.
        given_id: as its client gave it.
        shape: of its first message; None if it has no messages.
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
    """The event as it is listed; None for one that says nothing."""
    match event.data:
        case MessageAdded() as data:
            content = sent_message(data)
        case TaskStatusChanged(message=message) if message is not None:
            content = message
        case TaskStatusChanged() | TaskCreated() as data:
            word = (data.extra or {}).get("state") if isinstance(data, TaskStatusChanged) else None
            shape: Version = version_of({"status": {"state": word}})
            text = str(readable_state(state_name(data.status, shape) if word is None else word))
            content = _said(event, conversation, data.task_id, [text_part(text, shape)], shape)
        case TaskArtifactAdded() | TaskArtifactExtended() as data:
            is_old = any(isinstance(part, dict) and "kind" in part for part in data.parts)
            content = _said(event, conversation, data.task_id, data.parts, "0.3" if is_old else "1.0")
        case _:
            return None
    return EventView(
        str(event.id), event.actor, event.event_type, conversation.given_id, content, event.occurred_at, event.position
    )


def _said(event: Event, conversation: Summary, task_id: UUID, parts: list[Any], shape: Version) -> Json:
    message: Json = {
        "role": agent_role(shape),
        "parts": parts,
        "messageId": str(event.id),
        "contextId": conversation.given_id,
        "taskId": conversation.tasks[task_id],
    }
    return message | {"kind": "message"} if shape == "0.3" else message


def pending_view(row: PendingRow, fold: ConversationFold) -> Pending:
    """A message that awaits an answer, with what the agent said last of its work.

    Args:
        fold: its conversation.
    """
    task = fold.task_of(row.event_id)
    status = "" if task is None else task.words
    return Pending(fold.given_id, row.conversation, row.event_id, row.given_id or "", status, row.since, row.position)


# Conversations, messages, tasks and agents in a log, on plain wire JSON, whatever the log is kept in

FIRST_LOOK, LONGEST_LOOK = 0.05, 1.0
"""Seconds between looks at a message that another process is answering."""


class Manager:
    """Conversations of one tenant, for the coroutines of one event loop.

    Reads hold everything that is in the log when they begin; they do not wait for the workers. Conversations are named
    as their clients name them.

    A manager that was left (``async with``) raises ManagerClosed until it is entered again.

    Args:
        log: what they are kept in.
        answer: what answers messages; None says nothing.
    """

    def __init__(self, log: Log, answer: Answer | None = None, fold_bytes: int = MAX_BYTES) -> None:
        self.tenant = log.tenant
        self.agent = answer
        self._closable = ClosableLog(log)
        self._log = log = cast(Log, self._closable)
        self._folds = ConversationCache(log, fold_bytes)
        self._writer = Writer(log, self._folds)
        self._registry = Registry(log, self._folds)
        self._leases = Leases(log)
        self._running: dict[tuple[UUID, UUID], asyncio.Task[Answered]] = {}
        self._answering: WeakValueDictionary[tuple[UUID, UUID], asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        self._closable.is_closed = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait(list(self._running.values()))  # those messages stay pending
        await self._leases.close()
        self._closable.is_closed = True

    async def create_conversation(self, name: str = "", conversation_id: str | None = None) -> ConversationView:
        """Begins a conversation, or gives the one that has this id.

        Raises:
            ConversationIsDeleted: the one that has this id is deleted.
            InputError: the name is too long, or one of the two cannot be stored.
        """
        text = str(uuid4()) if conversation_id is None else checked_id(conversation_id)
        uuid = conversation_uuid(self.tenant, text)
        created = ConversationCreated(name=name, given_id=None if is_canonical_uuid(text) else text)
        with suppress(WrongExpectedVersion):  # it is there already
            await self._log.append(uuid, [NewEvent(created, actor="user")], expected="NO_STREAM")
        return (await self._existing(text)).view

    async def rename_conversation(self, conversation_id: str, name: str) -> ConversationView:
        """Names a conversation.

        Raises:
            NotFound: there is none.
            InputError: the name is longer than 255 characters, or cannot be stored.
        """
        return await self._change(conversation_id, ConversationRenamed(name=name))

    async def archive_conversation(self, conversation_id: str) -> ConversationView:
        """Has it active no longer. Raises NotFound."""
        return await self._change(conversation_id, ConversationArchived())

    async def reactivate_conversation(self, conversation_id: str) -> ConversationView:
        """Has it active again, and no longer hidden. Raises NotFound."""
        return await self._change(conversation_id, ConversationReactivated())

    async def delete_conversation(self, conversation_id: str) -> ConversationView:
        """Delete it: lists hide it, and it takes nothing further until it is reactivated; nothing is lost.

        Deleting it again changes nothing. Raises NotFound.
        """
        with suppress(ConversationIsDeleted):
            return await self._change(conversation_id, ConversationDeleted())
        return (await self._existing(conversation_id)).view

    async def get_conversation(self, conversation_id: str) -> ConversationView | None:
        """The conversation, hidden or not; None where there is none."""
        fold = await self._fold(conversation_id)
        return None if fold is None else fold.view

    async def conversations(
        self, *, include_archived: bool = True, include_deleted: bool = False
    ) -> list[ConversationView]:
        """All conversations, in the order in which they began."""
        folds = await self._folds.all_of(await self._log.conversations())
        views = [fold.view for fold in folds.values()]
        return [v for v in views if (include_archived or v.is_active) and (include_deleted or not v.is_deleted)]

    async def messages(self, conversation_id: str) -> list[Json]:
        """The messages of a conversation, oldest first, as they were sent; none where there is no such conversation."""
        fold = await self._fold(conversation_id)
        return [] if fold is None else list(fold.messages.values())

    async def accept(
        self, message: Json, conversation_id: str | None = None, *, event_id: UUID | None = None
    ) -> Accepted:
        """Stores a message that awaits an answer; durable when it returns.

        It goes into ``conversation_id``, else into the conversation of its ``contextId``, else into a new one, whose id
        it then bears. Where the conversation's last message belongs to a task that is still open, this one does too.

        A message that the client has sent before, with the same ``messageId`` and body, is not stored again: it is the
        one that was accepted then.

        Args:
            event_id: tells repetitions of a message that has no ``messageId``.

        Raises:
            InputError: the message cannot be stored.
            ConversationIsDeleted: the conversation is deleted.
        """
        return await self._writer.message(
            checked_message(message), conversation_id, awaits_answer=True, event_id=event_id
        )

    async def answer(self, accepted: Accepted) -> Json | None:
        """Has a message answered, and stores what comes as it comes; gives the last message of the reply.

        What an agent raises is stored as the outcome. A message that was answered already is left alone, and one that
        is being answered is waited for.
        """
        return (await self._answered(accepted)).reply

    async def send_message(self, conversation_id: str, message: Json) -> Json | None:
        """Accepts the message and has it answered; gives the reply, None where the agent said nothing.

        Raises:
            InputError: the message cannot be stored.
            AnswerFailed: the agent failed.
        """
        answered = await self._answered(await self.accept(message, conversation_id))
        if answered.error is not None:
            raise AnswerFailed(answered.error)
        return answered.reply

    async def save_message(self, message: Json, conversation_id: str | None = None) -> Json:
        """Stores a message that awaits no answer, where :meth:`accept` would; gives it as it is stored."""
        return (await self._writer.message(checked_message(message), conversation_id, awaits_answer=False)).message

    async def pending(self) -> list[Pending]:
        """The messages that await an answer, of whichever process, oldest first; none of a deleted conversation."""
        rows = await self._log.pending()
        waiting: defaultdict[UUID, list[PendingRow]] = defaultdict(list)
        for row in rows:
            waiting[row.conversation].append(row)
        views = [
            pending_view(row, fold)
            async for fold in self._folds.each(dict.fromkeys(waiting))
            if not fold.is_deleted
            for row in waiting[fold.id]
        ]
        return sorted(views, key=attrgetter("position"))

    async def accepted(self, pending: Pending) -> Accepted:
        """A pending message, such as one that a killed process left behind, so that it can be answered.

        Raises:
            NotFound: there is no such message.
        """
        return await self.stored(pending.conversation, pending.event_id, pending.position)

    async def stored(self, conversation: UUID, event_id: UUID, position: int) -> Accepted:
        """Return an accepted message by its place in the log.

        Raises:
            NotFound: there is no such message.
        """
        fold = await self._folds.get(conversation)
        message = None if fold is None else fold.messages.get(event_id)
        if fold is None or message is None:
            raise NotFound(f"conversation {conversation} has no message {event_id}")
        task_id = message.get("taskId")
        return Accepted(
            fold.given_id,
            fold.id,
            event_id,
            message,
            message.get("messageId") or "",
            task_id if isinstance(task_id, str) and task_id else None,
            position,
        )

    async def answer_pending(self) -> list[tuple[Pending, str | None]]:
        """Have everything answered that awaits it, oldest first; return each with what went wrong, if anything did.

        Messages that another process is answering are left to it. Whether it is still alive shows within some seconds.
        """
        alive: set[UUID] = set()
        answered: list[tuple[Pending, str | None]] = []
        for one in await self.pending():
            with suppress(AnswerTaken):
                answered.append((one, (await self._answered(await self.accepted(one), alive)).error))
        return answered

    async def abandon(self, pending: Pending) -> None:
        """Has a pending message wait no longer."""
        answered = MessageAnswered(message_id=pending.event_id, outcome="abandoned")
        await self._writer.append_once(pending.conversation, answered_event(answered))

    async def tasks(self, conversation_id: str | None = None) -> list[Json]:
        """The tasks of a conversation, or of all, in the order in which they began, as A2A has them."""
        if conversation_id is not None:
            fold = await self._fold(conversation_id)
            return [] if fold is None else [fold.wire(task) for task in fold.tasks.values()]
        folds = await self._folds.all_of(await self._log.conversations_with_tasks())
        found = [(task.position, fold, task) for fold in folds.values() for task in fold.tasks.values()]
        return [fold.wire(task) for _, fold, task in sorted(found, key=itemgetter(0)) if not fold.is_deleted]

    async def events(self, *, after: int = 0, limit: int | None = None) -> list[EventView]:
        """What happened beyond a position, oldest first; of the latest so many, those of no deleted conversation.

        Raises:
            InputError: one of them is not a number, or is negative.
        """
        for name, value in (("after", after), ("limit", 0 if limit is None else limit)):
            if not isinstance(value, int) or value < 0:
                raise InputError(f"{name}: {value!r:.80} is not a number of 0 or more")
        events = await self._log.latest(after, limit)
        found = self._folds.each({event.conversation_id: event.version for event in events})
        summaries = {fold.id: summary(fold) async for fold in found}
        listed = ((event, summaries.get(event.conversation_id)) for event in events)
        views = [event_view(event, one) for event, one in listed if one is not None and not one.is_deleted]
        return [view for view in views if view is not None]

    async def versions(self) -> dict[UUID, int]:
        """The conversations in the order in which they began, with their versions."""
        return await self._log.conversations()

    def folds(self, versions: Mapping[UUID, int | None]) -> AsyncIterator[ConversationFold]:
        """Conversations at these versions or later, one after the other, in the order given; none is kept."""
        return self._folds.each(versions, keep=False)

    async def register_agent(self, url_or_card: str | Json, *, allow_private: bool = True) -> Json:
        """Register an agent by the URL of its card, or by the card itself; return the card.

        Args:
            allow_private: fetch a card also from an address that is not global: private, loopback, link-local.

        Raises:
            InputError: the URL is none, or the card names none.
            AgentUnreachable: its card could not be had.
        """
        return await self._registry.register(url_or_card, allow_private=allow_private)

    async def unregister_agent(self, url: str) -> None:
        """Forgets the agent. Raises NotFound where none is registered under this URL."""
        await self._registry.unregister(url)

    async def agents(self) -> list[Json]:
        """The cards of the registered agents, in the order in which they were registered."""
        return await self._registry.cards()

    async def position(self) -> int:
        """Up to where the log is final: what the reads give does not change for good while it stays."""
        return await self._log.position()

    async def begin(self, accepted: Accepted, alive: set[UUID] | None = None) -> Session | None:
        """Begin to store an answer, once no other process answers; return None if it is stored already.

        Release the session afterwards.

        Args:
            alive: holders of leases that are known to renew them; what they answer is not waited for.

        Raises:
            AnswerTaken: only with ``alive``; another process is answering the message.
        """
        lock = self._answering.setdefault((accepted.conversation, accepted.event_id), asyncio.Lock())
        await lock.acquire()
        lease: Lease | None = None
        try:
            lease = await self._lease(accepted, alive)
            if lease is not None:
                fold = await self._known_at(accepted, lease.version)
                if accepted.event_id not in fold.outcomes and not fold.is_deleted:
                    return await self._session(accepted, fold, lease, lock)
                if accepted.event_id not in fold.outcomes:  # an agent is not asked for what cannot be stored
                    error = str(ConversationIsDeleted(accepted.conversation))
                    answered = MessageAnswered(message_id=accepted.event_id, outcome="abandoned", error=error)
                    await self._writer.append_once(accepted.conversation, answered_event(answered))
        except BaseException:
            if lease is not None:
                self._leases.release(lease)
            lock.release()
            raise
        if lease is not None:
            self._leases.release(lease)
        lock.release()
        return None

    async def _lease(self, accepted: Accepted, alive: set[UUID] | None) -> Lease | None:
        """Take the lease of a message, as soon as no other process has it; return None if it is answered meanwhile."""
        seen: LeaseStatus | None = None
        pause = FIRST_LOOK
        while True:
            taken = await self._leases.take((accepted.conversation, accepted.event_id))
            if isinstance(taken, Lease):
                return taken
            if taken is None:
                continue
            if accepted.event_id in (await self._known_at(accepted, taken.version)).outcomes:
                return None
            if alive is not None:
                if seen is not None and (seen.holder, seen.expires_at) != (taken.holder, taken.expires_at):
                    alive.add(taken.holder)
                if taken.holder in alive or taken.expires_at is None:
                    raise AnswerTaken(f"another process is answering message {accepted.event_id}")
            seen = taken
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_LOOK)

    async def _known_at(self, accepted: Accepted, version: int) -> ConversationFold:
        """The conversation of a message, at this version or later."""
        fold = self._folds.kept(accepted.conversation)
        if fold is None or fold.version < version or accepted.event_id not in fold.messages:
            fold = await self._folds.get(accepted.conversation)
        if fold is None:
            raise NotFound(f"there is no conversation {accepted.conversation}")
        return fold

    async def _session(
        self, accepted: Accepted, fold: ConversationFold, lease: Lease, answering: asyncio.Lock
    ) -> LogSession:
        sent = addressed(accepted, fold)
        recording = Recording(
            self.tenant,
            accepted.conversation,
            answer=self.agent,
            description=parts_text(accepted.message.get("parts")),
            known_task=fold.seen,
            causation_id=str(accepted.event_id),
        )
        earlier: InterruptedAnswer | None = None
        if fold.caused_by(accepted.event_id):
            task = fold.task_of(accepted.event_id)
            earlier = InterruptedAnswer(
                fold.reply_to(accepted.event_id), None if task is None else task_to_wire(task.row)
            )
            if earlier.task is not None:
                recording.events_of(TaskSnapshot(earlier.task))  # stored already: what follows is compared with it
        context = await self._context(sent)
        return LogSession(self._writer, self._leases, lease, sent, context, recording, fold, earlier, answering)

    async def reply_to(self, accepted: Accepted) -> Json | None:
        """The last message of the stored answer."""
        fold = await self._folds.get(accepted.conversation)
        return None if fold is None else fold.reply_to(accepted.event_id)

    async def _context(self, accepted: Accepted) -> Context:
        """What the agent may know."""

        async def history() -> list[Json]:
            fold = await self._folds.get(accepted.conversation)
            return [] if fold is None else list(fold.messages.values())

        fold = self._folds.kept(accepted.conversation) or await self._existing(accepted.conversation_id)
        own = {actor: (c, conversation_uuid(self.tenant, c)) for actor, c in fold.contexts_of(accepted.task_id).items()}
        # No agent goes on in the context of another conversation.
        others = await self._folds.all_of({named: None for _, named in own.values() if named != fold.id})
        contexts = {actor: c for actor, (c, named) in own.items() if named != fold.id and named not in others}
        agents = await self._registry.recent()
        return Context(self.tenant, accepted.conversation_id, accepted.task_id, agents, history, contexts)

    async def _answered(self, accepted: Accepted, alive: set[UUID] | None = None) -> Answered:
        key = accepted.conversation, accepted.event_id
        while True:
            running = self._running.get(key)
            if running is None:
                running = asyncio.create_task(
                    answer_once(self.agent, partial(self.begin, accepted, alive), partial(self.reply_to, accepted))
                )
                self._running[key] = running
                running.add_done_callback(lambda _: self._running.pop(key, None))
            try:
                return await asyncio.shield(running)  # who gives up waiting does not take the answer from the others
            except AnswerTaken:
                if alive is not None:
                    raise  # else it was answer_pending that did not wait
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if running.cancelled() and (current is None or not current.cancelling()):
                    raise ManagerClosed from None  # it was not this caller that was cancelled
                raise

    async def _fold(self, conversation_id: str) -> ConversationFold | None:
        return await self._folds.get(conversation_uuid(self.tenant, conversation_id))

    async def _existing(self, conversation_id: str) -> ConversationFold:
        fold = await self._fold(conversation_id)
        if fold is None:
            raise NotFound(f"no conversation has the id {printable(conversation_id)!r}")
        return fold

    async def _change(self, conversation_id: str, event: EventData) -> ConversationView:
        fold = await self._existing(conversation_id)
        await self._log.append(fold.id, [NewEvent(event, actor="user")])
        return (await self._existing(conversation_id)).view
