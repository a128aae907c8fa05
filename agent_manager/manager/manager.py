"""Conversations, messages, tasks and agents in a log, on plain wire JSON, whatever the log is kept in."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from operator import itemgetter
from typing import Self
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from agent_manager.agents.answering import Answer, Context
from agent_manager.agents.recording import Recording
from agent_manager.agents.wire import parts_text
from agent_manager.manager.addressing import addressed
from agent_manager.manager.answers import Answered, AnswerFailed, Session, ask
from agent_manager.manager.folding import ConversationFold
from agent_manager.manager.folds import MAX_BYTES, Folds
from agent_manager.manager.happened import event_view, pending_view
from agent_manager.manager.log import Log
from agent_manager.manager.registry import Registry
from agent_manager.manager.sessions import LogSession, answered_event
from agent_manager.manager.views import Accepted, ConversationView, EventView, Json, Pending
from agent_manager.manager.writing import Writer, checked_id, checked_message
from eventstore import (
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    ConversationRenamed,
    EventData,
    MessageAnswered,
    NewEvent,
    conversation_uuid,
)
from eventstore.ending import end
from eventstore.errors import NotFound, WrongExpectedVersion, printable
from eventstore.ids import is_canonical_uuid


class Manager:
    """Conversations of one tenant, for the coroutines of one event loop.

    Reads hold everything that is in the log when they begin; they do not wait for the workers. Conversations are named
    as their clients name them.

    Args:
        log: what they are kept in.
        answer: what answers messages; None says nothing.
    """

    def __init__(self, log: Log, answer: Answer | None = None, fold_bytes: int = MAX_BYTES) -> None:
        self.tenant = log.tenant
        self.agent = answer
        self._log = log
        self._folds = Folds(log, fold_bytes)
        self._writer = Writer(log, self._folds)
        self._registry = Registry(self._writer, self._folds)
        self._running: dict[UUID, asyncio.Task[Answered]] = {}
        self._answering: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(list(self._running.values()))  # those messages stay pending

    async def create_conversation(self, name: str = "", conversation_id: str | None = None) -> ConversationView:
        """Begins a conversation, or gives the one that has this id.

        Raises:
            InputError: the name is too long, or one of the two cannot be stored.
        """
        text = str(uuid4()) if conversation_id is None else checked_id(conversation_id)
        uuid = conversation_uuid(self.tenant, text)
        created = ConversationCreated(name=name, given_id=None if is_canonical_uuid(text) else text)
        with suppress(WrongExpectedVersion):  # it is there already
            await self._writer.append(uuid, [NewEvent(created, actor="user")], expected="NO_STREAM")
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
        """Hides it; nothing is lost. Raises NotFound."""
        return await self._change(conversation_id, ConversationDeleted())

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

    async def accept(self, message: Json, conversation_id: str | None = None) -> Accepted:
        """Stores a message that awaits an answer; durable when it returns.

        It goes into ``conversation_id``, else into the conversation of its ``contextId``, else into a new one, whose id
        it then bears. Where the conversation's last message belongs to a task that is still open, this one does too.

        Raises:
            InputError: the message cannot be stored.
        """
        return await self._writer.message(checked_message(message), conversation_id, awaits_answer=True)

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
        """The messages that await an answer, of whichever process, oldest first."""
        rows = await self._log.pending()
        folds = await self._folds.all_of(dict.fromkeys(row.conversation for row in rows))
        return [pending_view(row, folds[row.conversation]) for row in rows if row.conversation in folds]

    async def accepted(self, pending: Pending) -> Accepted:
        """A pending message, such as one that a killed process left behind, so that it can be answered.

        Raises:
            NotFound: there is no such message.
        """
        fold = await self._folds.get(pending.conversation)
        message = None if fold is None else fold.messages.get(pending.event_id)
        if fold is None or message is None:
            raise NotFound(f"conversation {printable(pending.conversation_id)!r} has no message {pending.event_id}")
        task_id = message.get("taskId")
        return Accepted(
            fold.given_id,
            fold.id,
            pending.event_id,
            message,
            pending.message_id,
            task_id if isinstance(task_id, str) else None,
            pending.position,
        )

    async def answer_pending(self) -> list[tuple[Pending, str | None]]:
        """Has everything answered that awaits it, oldest first; gives each with what went wrong, if anything did."""
        found = await self.pending()
        return [(one, (await self._answered(await self.accepted(one))).error) for one in found]

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
        """What happened beyond a position, oldest first; of it the latest so many."""
        events = await self._log.latest(after, limit)
        folds = await self._folds.all_of({event.conversation_id: event.version for event in events})
        views = (event_view(event, folds[event.conversation_id]) for event in events if event.conversation_id in folds)
        return [view for view in views if view is not None]

    async def register_agent(self, url_or_card: str | Json) -> Json:
        """Registers an agent by the URL of its card, or by the card itself; gives the card.

        Raises:
            InputError: the URL is none, or the card names none.
            AgentUnreachable: its card could not be had.
        """
        return await self._registry.register(url_or_card)

    async def unregister_agent(self, url: str) -> None:
        """Forgets the agent. Raises NotFound where none is registered under this URL."""
        await self._registry.unregister(url)

    async def agents(self) -> list[Json]:
        """The cards of the registered agents, in the order in which they were registered."""
        return await self._registry.cards()

    async def position(self) -> int:
        """Up to where the log is final: what the reads give does not change for good while it stays."""
        return await self._log.position()

    async def begin(self, accepted: Accepted) -> Session | None:
        """The storing of an answer, once nobody else answers; None where it was answered. Release it afterwards."""
        lock = self._answering.setdefault(accepted.event_id, asyncio.Lock())
        await lock.acquire()
        try:
            fold = self._folds.kept(accepted.conversation)
            if fold is None or accepted.event_id not in fold.messages:
                fold = await self._folds.get(accepted.conversation)
            if fold is not None and accepted.event_id not in fold.outcomes:
                return LogSession(self._writer, accepted, self._recording(accepted, fold), lock)
        except BaseException:
            lock.release()
            raise
        lock.release()
        return None

    def _recording(self, accepted: Accepted, fold: ConversationFold) -> Recording:
        return Recording(
            self.tenant,
            accepted.conversation,
            answer=self.agent,
            description=parts_text(accepted.message.get("parts")),
            known_task=fold.seen,
            causation_id=str(accepted.event_id),
        )

    async def reply_to(self, accepted: Accepted) -> Json | None:
        """The last message of the stored answer."""
        fold = await self._folds.get(accepted.conversation)
        return None if fold is None else fold.reply_to(accepted.event_id)

    async def context_of(self, accepted: Accepted) -> Context:
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

    async def addressed(self, accepted: Accepted) -> Accepted:
        """Return the message as its agent may be sent it: with a ``contextId``, and with no ids of other conversations.

        Raises:
            NotFound: its conversation does not exist.
        """
        fold = self._folds.kept(accepted.conversation) or await self._existing(accepted.conversation_id)
        return addressed(accepted, fold)

    async def _answered(self, accepted: Accepted) -> Answered:
        running = self._running.get(accepted.event_id)
        if running is None:
            running = asyncio.create_task(self._ask(accepted))
            self._running[accepted.event_id] = running
            running.add_done_callback(lambda _: self._running.pop(accepted.event_id, None))
        return await asyncio.shield(running)  # whoever gives up does not take the answer from the others

    async def _ask(self, accepted: Accepted) -> Answered:
        session = await self.begin(accepted)
        if session is None:
            return Answered(await self.reply_to(accepted))
        try:
            sent = await self.addressed(accepted)
            return await ask(self.agent, sent, await self.context_of(sent), session)
        finally:
            await session.release()

    async def _fold(self, conversation_id: str) -> ConversationFold | None:
        return await self._folds.get(conversation_uuid(self.tenant, conversation_id))

    async def _existing(self, conversation_id: str) -> ConversationFold:
        fold = await self._fold(conversation_id)
        if fold is None:
            raise NotFound(f"no conversation has the id {printable(conversation_id)!r}")
        return fold

    async def _change(self, conversation_id: str, event: EventData) -> ConversationView:
        fold = await self._existing(conversation_id)
        await self._writer.append(fold.id, [NewEvent(event, actor="user")])
        return (await self._existing(conversation_id)).view
