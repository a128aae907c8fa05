"""Answering messages: exactly one process answers, and an outcome is stored whatever the agent does.

A lease (:mod:`agent_manager.leases`) prevents two processes from calling an agent at the same time. It cannot prevent a
suspended process from writing after its lease has expired; :class:`~agent_manager.answer_session.AnswerSession` does.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from agent_manager.a2a import Json
from agent_manager.accepted_messages import Accepted, Key
from agent_manager.agent_registry import AgentRegistry
from agent_manager.agents.agent import Answer, Context, Reply, Update, closing, resumption
from agent_manager.agents.streaming import batches
from agent_manager.answer_session import MAX_REASON_CHARACTERS, AnswerSession, Outcome, answered_event
from agent_manager.conversation_cache import ConversationFoldCache
from agent_manager.conversation_fold import ConversationFold
from agent_manager.errors import AgentError, AgentUnreachable, AnswerTaken, InvalidUpdate, ManagerClosed, TaskUnknown
from agent_manager.leases import Lease, Leases
from agent_manager.storage import LeaseStatus, Log
from agent_manager.writer import Writer
from eventstore import MessageAnswered, conversation_uuid
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import ConversationIsDeleted, EventStoreError, InputError, StoreClosed, printable

T = TypeVar("T")

_FIRST_PAUSE, _MAX_PAUSE = 0.05, 1.0
"""Seconds between checks of a message that another process is answering."""

_log = logging.getLogger(__name__)


class RunCoroutine(Protocol):
    """A function that runs a coroutine in the event loop of the manager."""

    async def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result."""
        ...


async def run_here(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the current event loop, for a caller in the manager's own loop."""
    return await coroutine


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of an answer.

    Attributes:
        reply: the last message.
        error: the reason of a failure; None if the answer did not fail.
    """

    reply: Json | None
    error: str | None = None


class Answers:
    """The answers to the messages of one manager: each message has one session at a time, in all processes."""

    def __init__(self, log: Log, cache: ConversationFoldCache, writer: Writer, registry: AgentRegistry) -> None:
        self._cache = cache
        self._writer = writer
        self._registry = registry
        self._leases = Leases(log)
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._shared: dict[Key, asyncio.Task[Answered]] = {}

    async def close(self) -> None:
        """Stop answering and release all leases; the messages stay pending."""
        await cancel_and_wait(list(self._shared.values()))
        await self._leases.close()

    async def answer_shared(self, agent: Answer | None, accepted: Accepted, alive: set[UUID] | None = None) -> Answered:
        """Answer a message, see :meth:`answer_once`, in a task that concurrent callers share."""
        key = accepted.key
        while True:
            task = self._shared.get(key)
            if task is None:
                task = self._shared[key] = asyncio.create_task(self.answer_once(agent, accepted, alive))
                task.add_done_callback(lambda _: self._shared.pop(key, None))
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

    async def answer_once(
        self, agent: Answer | None, accepted: Accepted, alive: set[UUID] | None = None, run: RunCoroutine = run_here
    ) -> Answered:
        """Answer a message, or wait until another process has; return the end of the answer.

        The agent runs in the current event loop.

        Args:
            agent: without one, there is no reply.
            alive: collects lease holders that were seen to renew their leases. With it, a message that one of them
                answers raises AnswerTaken; without it, this waits.
            run: runs coroutines in the event loop of the manager.
        """
        while True:
            session = await run(self._begin(agent, accepted, alive))
            if session is None:
                return Answered(await run(self._reply_to(accepted)))
            try:
                return await _call_agent(agent, session, run)
            except AnswerTaken:
                continue
            finally:
                with suppress(StoreClosed):  # closing a manager releases its leases
                    await run(session.release())

    async def abandon(self, conversation: UUID, event_id: UUID, error: str | None) -> None:
        """End the waiting of a message without an answer."""
        answered = MessageAnswered(message_id=event_id, outcome="abandoned", error=error)
        await self._writer.append_once(conversation, answered_event(answered))

    async def _begin(self, agent: Answer | None, accepted: Accepted, alive: set[UUID] | None) -> AnswerSession | None:
        """Begin to store an answer, when no other process answers; return None if it is stored already."""
        lock = self._locks.setdefault(accepted.key, asyncio.Lock())
        await lock.acquire()
        lease: Lease | None = None

        def release() -> None:
            if lease is not None:
                self._leases.release(lease)
            lock.release()

        try:
            lease = await self._take_lease(accepted, alive)
            session = None if lease is None else await self._session(agent, accepted, lease, release)
        except BaseException:
            release()
            raise
        if session is None:
            release()
        return session

    async def _take_lease(self, accepted: Accepted, alive: set[UUID] | None) -> Lease | None:
        """Take the lease of a message when no other process has it; return None if it is answered meanwhile."""
        before: LeaseStatus | None = None
        pause = _FIRST_PAUSE
        while True:
            status = await self._leases.take(accepted.key)
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
            pause = min(2 * pause, _MAX_PAUSE)

    async def _session(
        self, agent: Answer | None, accepted: Accepted, lease: Lease, on_release: Callable[[], None]
    ) -> AnswerSession | None:
        fold = await self._fold_at(accepted, lease.version)
        if accepted.event_id in fold.outcomes:
            return None
        if fold.is_deleted:  # no agent is called for an answer that cannot be stored
            await self.abandon(*accepted.key, str(ConversationIsDeleted(accepted.conversation)))
            return None
        session = AnswerSession(self._writer, agent, lease, accepted, fold, on_release)
        session.context = await self._context(session.accepted, fold)
        return session

    async def _context(self, accepted: Accepted, fold: ConversationFold) -> Context:
        async def history() -> list[Json]:
            fold = await self._cache.get(accepted.conversation)
            return (
                [] if fold is None else [*(await self._cache.shared_messages(fold)).values(), *fold.messages.values()]
            )

        tenant = self._writer.tenant
        named = fold.contexts_of(accepted.task_id)
        uuids = {context: conversation_uuid(tenant, context) for context in named.values()}
        # No agent continues in the context of another conversation.
        others = await self._cache.all_of({uuid: None for uuid in uuids.values() if uuid != fold.id})
        contexts = {actor: c for actor, c in named.items() if uuids[c] != fold.id and uuids[c] not in others}
        agents = await self._registry.recent_cards()
        push = accepted.push_notification
        return Context(tenant, accepted.conversation_id, accepted.task_id, agents, history, contexts, push)

    async def _reply_to(self, accepted: Accepted) -> Json | None:
        fold = await self._cache.get(accepted.conversation)
        return None if fold is None else fold.reply_to(accepted.event_id)

    async def _fold_at(self, accepted: Accepted, version: int) -> ConversationFold:
        """Return the conversation of a message at a version or later."""
        fold = self._cache.kept(accepted.conversation)
        if fold is None or fold.version < version or accepted.event_id not in fold.messages:
            return await self._cache.existing(accepted.conversation)
        return fold


async def _call_agent(agent: Answer | None, session: AnswerSession, run: RunCoroutine) -> Answered:
    """Call an agent and store its updates as they arrive.

    An error of the agent is stored as the outcome. If the conversation is deleted meanwhile, the answer is abandoned.

    Raises:
        AnswerTaken: another process is answering, or has answered.
        EventStoreError: the store failed; the message stays pending.
    """
    reply = session.reply
    problem: Exception | None = None
    outcome: Outcome = "failed"
    try:
        if agent is not None:
            async with aclosing(batches(_updates(agent, session, run))) as received:
                async for updates in received:
                    invalid = await _store(session, updates, run)
                    if problem is None and invalid is not None:  # the updates that follow are stored all the same
                        problem = _StoreFailed(invalid)
                    replies = [update.message for update in updates if isinstance(update, Reply)]
                    reply = replies[-1] if replies else reply
    except _StoreFailed as failure:
        if isinstance(failure.error, ConversationIsDeleted):
            outcome = "abandoned"
        elif not isinstance(failure.error, InputError):
            raise failure.error from None
        problem = failure
    except Exception as failure:
        problem = failure
    if problem is None:
        await run(session.finish("answered", None))
        return Answered(reply)
    trace = None if isinstance(problem, EventStoreError | _StoreFailed) else problem
    event_id = session.accepted.event_id
    fields = {"event": "answer_failed", "event_id": str(event_id), "error_type": type(problem).__name__}
    _log.warning("message %s was not answered", event_id, extra=fields, exc_info=trace)
    await run(session.finish(outcome, _reason(problem)))
    return Answered(reply, printable(_description(problem), 2000))


_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*://\S*?(?=[^\w/]*(?:\s|$))"  # a URL
    r"|\[[0-9a-f:]*:[0-9a-f:.]*\](?::\d+)?|\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?"  # an address of IPv6, of IPv4
    r"|\b[a-z][\w-]*(?:\.[\w-]+)*:\d{2,5}\b",  # host:port
    re.IGNORECASE,
)


def _reason(problem: Exception) -> str:
    """Return the reason of a failure for everyone who may read the conversation: without secrets and addresses.

    The text of an exception that a function of the application raised can contain anything: its type must do.
    """
    if not isinstance(problem, AgentError | _StoreFailed):
        return f"the agent raised {type(problem).__name__}; the log of the process that answered has the details"
    text = _description(problem)
    if isinstance(problem, AgentUnreachable):  # the cause names the host
        text = re.sub("(: cannot be reached).*", r"\1", text, flags=re.DOTALL)
    if (own := _ADDRESS.match(text)) is not None:  # the agent's name is its URL until its card is known
        text = f"the agent{text[own.end() :]}"
    return printable(_ADDRESS.sub("(address)", text), MAX_REASON_CHARACTERS)


def _description(problem: Exception) -> str:
    if isinstance(problem, _StoreFailed):
        return f"an update of the agent cannot be stored: {problem}"
    return str(problem) if isinstance(problem, AgentError) else f"{type(problem).__name__}: {problem}"


async def _updates(agent: Answer, session: AnswerSession, run: RunCoroutine) -> AsyncGenerator[Update, None]:
    """Yield an agent's updates; after an interrupted answer, those that are missing.

    An agent that can resume continues the task that it was working on. Any other agent receives the message again,
    unless it has answered: a function that would have yielded more after its first message is not called twice.
    """
    task, resume = session.task, resumption(agent)
    context = replace(session.context, history=lambda: run(session.context.history()))
    if resume is not None and task.task_id is not None and (task.is_open or session.reply is None):
        try:
            async with closing(resume(task.task_id, context)) as updates:
                async for update in updates:
                    if session.reply is None or not isinstance(update, Reply):
                        yield update
        except TaskUnknown:
            pass  # raised before any update
        else:
            return
    if session.reply is not None:
        return
    if task.task_id is not None and not task.is_open:  # the agent has ended its work without a reply
        if (message := task.final_message()) is not None:
            yield Reply(message)
        return
    async with closing(agent(session.accepted.message, context)) as updates:
        async for update in updates:
            yield update


class _StoreFailed(Exception):
    """An error of the store, as distinct from an error of the agent, which may have the same type."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


async def _store(session: AnswerSession, updates: list[Update | InvalidUpdate], run: RunCoroutine) -> Exception | None:
    try:
        return await run(session.record(updates))
    except Exception as error:
        raise _StoreFailed(error) from error
