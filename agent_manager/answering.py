"""Answering messages: exactly one process answers, and an outcome is stored whatever the agent does.

A manager takes the lease of a message before it calls an agent, renews its leases while it works, and releases them. A
process that ends without releasing stops renewing, and after :data:`LEASE_SECONDS` another process may take over its
messages. The server's clock decides.

A lease prevents two processes from calling an agent at the same time. It cannot prevent a suspended process from
writing after its lease has expired; :class:`AnswerSession` does.

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
import logging
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from agent_manager.a2a import Json, parts_text, task_to_wire, without_secrets
from agent_manager.agent_registry import AgentRegistry
from agent_manager.agents.agent import (
    Answer,
    ArtifactUpdate,
    Context,
    Reply,
    StatusUpdate,
    TaskSnapshot,
    TaskTracker,
    Update,
    closing,
    resumption,
)
from agent_manager.agents.recorder import Recording, merged, notes_in, split_event, storable, task_failed, task_uuid
from agent_manager.agents.streaming import batches
from agent_manager.conversation_cache import ConversationFoldCache
from agent_manager.conversation_fold import Accepted, ConversationFold, Key
from agent_manager.errors import AgentError, AgentUnreachable, AnswerTaken, InvalidUpdate, ManagerClosed, TaskUnknown
from agent_manager.storage import LeaseStatus, Log
from agent_manager.writer import Writer
from eventstore import MessageAnswered, Metadata, NewEvent, TaskPushNotificationSet, conversation_uuid
from eventstore.append import MAX_EVENTS
from eventstore.concurrency import cancel_and_wait, independent_task
from eventstore.errors import (
    ConversationIsDeleted,
    EventStoreError,
    EventTooLarge,
    InputError,
    InvalidEvent,
    NotFound,
    StoreClosed,
    printable,
)
from eventstore.ids import derived_uuid

T = TypeVar("T")

Outcome: TypeAlias = Literal["answered", "failed", "abandoned"]

LEASE_SECONDS = 10.0
"""Time after which other processes take over the messages of a process that ended or was suspended."""
RENEW_SECONDS = 3.0
"""Time between renewals: two of them may fail before a lease expires."""

_FIRST_PAUSE, _MAX_PAUSE = 0.05, 1.0
"""Seconds between checks of a message that another process is answering."""

_INTERRUPTED = "the answer was interrupted, and the message was answered again"

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
        await self._writer.append_once(conversation, _answered_event(answered))

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
            fold = await self._cache.get(accepted.conversation)
        if fold is None:
            raise NotFound(f"conversation {accepted.conversation} does not exist")
        return fold


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
_MAX_REASON_CHARACTERS = 500


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
    return printable(_ADDRESS.sub("(address)", text), _MAX_REASON_CHARACTERS)


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
        error = error or printable(" ".join(dict.fromkeys(self._notes)), _MAX_REASON_CHARACTERS) or None
        answered = _answered_event(MessageAnswered(message_id=message, outcome=outcome, error=error, task_id=task_id))
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


def _answered_event(answered: MessageAnswered) -> NewEvent:
    """Return the event that ends the waiting of a message. Its id is derived, so it can be stored only once."""
    return NewEvent(answered, derived_uuid("answered", str(answered.message_id)), "system")


class Lease:
    """A lease that this manager holds.

    Attributes:
        key: the message.
        version: the version of its conversation when the lease was taken.
        is_lost: whether another holder has taken it since.
    """

    def __init__(self, key: Key, version: int) -> None:
        self.key = key
        self.version = version
        self.is_lost = False


class Leases:
    """The leases of one manager. Concurrent calls share statements."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._holder = uuid4()
        self._held: dict[Key, Lease] = {}
        self._to_take: dict[Key, asyncio.Future[LeaseStatus | None]] = {}
        self._to_release: set[Key] = set()
        self._worker: asyncio.Task[None] | None = None
        self._renewer: asyncio.Task[None] | None = None

    async def take(self, key: Key) -> Lease | LeaseStatus | None:
        """Take the lease of a message that this manager does not hold.

        Returns:
            The status of the lease if another holder has it; None if that has just released it: try again.
        """
        future = self._to_take[key] = asyncio.get_running_loop().create_future()
        self._start_worker()
        try:
            status: LeaseStatus | None = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(lambda _: self._release_key(key))
            raise
        if status is None or status.holder != self._holder:
            return status
        lease = self._held[key] = Lease(key, status.version)
        if self._renewer is None or self._renewer.done():
            self._renewer = independent_task(self._renew())
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease in the background. If the server cannot be reached, the lease expires."""
        if self._held.pop(lease.key, None) is not None:
            self._release_key(lease.key)

    async def close(self) -> None:
        """Release all leases."""
        if self._renewer is not None:
            await cancel_and_wait((self._renewer,))
        for lease in list(self._held.values()):
            self.release(lease)
        if self._worker is not None:
            await self._worker

    def _release_key(self, key: Key) -> None:
        self._to_release.add(key)
        self._start_worker()

    def _start_worker(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = independent_task(self._work())

    async def _work(self) -> None:
        while self._to_take or self._to_release:
            futures, self._to_take = self._to_take, {}
            released, self._to_release = self._to_release, set()
            try:
                await self._release_all(released)
                statuses = await self._log.lease_answers(futures, self._holder, LEASE_SECONDS) if futures else {}
            except BaseException as error:
                for future in futures.values():
                    future.set_exception(error if isinstance(error, Exception) else StoreClosed())
                    future.exception()  # retrieved, even if its caller was cancelled
                if not isinstance(error, Exception):
                    raise
            else:
                for key, future in futures.items():
                    future.set_result(statuses.get(key))

    async def _release_all(self, keys: set[Key]) -> None:
        try:
            if keys:
                await self._log.release_answers(keys, self._holder)
        except EventStoreError as error:
            _log.debug("the leases of %d message(s) could not be released: %s", len(keys), error)

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(RENEW_SECONDS)
            held = dict(self._held)
            try:
                renewed = await self._log.renew_leases(held, self._holder, LEASE_SECONDS) if held else set()
            except EventStoreError as error:
                text = "the leases of %d message(s) could not be renewed: %s"
                _log.warning(text, len(held), error, extra={"event": "leases_expire"})
                continue
            for key, lease in held.items():
                lease.is_lost = lease.is_lost or key not in renewed
