"""Answering messages: exactly one process answers, and an outcome is stored whatever the agent does.

A manager takes the lease of a message before it calls an agent, renews its leases while it works, and releases them. A
process that ends without releasing stops renewing, and after :data:`LEASE_SECONDS` another process may take over its
messages. The server's clock decides.

A lease prevents two processes from calling an agent at the same time. It cannot prevent a suspended process from
writing after its lease has expired; :class:`AnswerSession` does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar
from uuid import uuid4

from agent_manager.a2a import OPEN, Json, status_of
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
from agent_manager.agents.recorder import Recording, split_event, storable, task_uuid
from agent_manager.agents.updates import checked_update
from agent_manager.conversation import Accepted, ConversationFold
from agent_manager.errors import AgentError, AnswerTaken, InvalidUpdate, TaskUnknown
from agent_manager.storage import Key, LeaseStatus, Log
from agent_manager.writer import Writer
from eventstore import MessageAnswered, Metadata, NewEvent
from eventstore.append import MAX_EVENTS
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import (
    ConversationIsDeleted,
    EventStoreError,
    EventTooLarge,
    InputError,
    InvalidEvent,
    StoreClosed,
    printable,
)
from eventstore.event_types import TaskStatus, TaskStatusChanged
from eventstore.ids import derived_uuid

T = TypeVar("T")

Outcome: TypeAlias = Literal["answered", "failed", "abandoned"]

LEASE_SECONDS = 10.0
"""Time after which other processes take over the messages of a process that ended or was suspended."""
RENEW_SECONDS = 3.0
"""Time between renewals: two of them may fail before a lease expires."""

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
        reply: its last message.
        error: why it failed; None if it did not.
    """

    reply: Json | None
    error: str | None = None


async def answer_once(
    agent: Answer | None,
    begin: Callable[[], Coroutine[Any, Any, AnswerSession | None]],
    reply: Callable[[], Coroutine[Any, Any, Json | None]],
    run: RunCoroutine = run_here,
) -> Answered:
    """Answer a message by this process or wait until another one has, and return the end of the answer.

    The agent runs in the current event loop.

    Args:
        begin: begins a session that stores the answer; returns None if the answer is stored already.
        reply: returns the last message of the stored answer.
        run: runs coroutines of the manager.
    """
    while True:
        session = await run(begin())
        if session is None:
            return Answered(await run(reply()))
        try:
            return await _call_agent(agent, session, run)
        except AnswerTaken:
            continue
        finally:
            with suppress(StoreClosed):  # closing a manager releases its leases
                await run(session.release())


async def _call_agent(agent: Answer | None, session: AnswerSession, run: RunCoroutine) -> Answered:
    """Call an agent and store its updates as they arrive.

    An error of the agent is stored as the outcome. If the conversation is deleted meanwhile, the answer is abandoned.

    Raises:
        AnswerTaken: another process is answering, or has answered.
        EventStoreError: the store failed; the message stays pending.
    """
    reply: Json | None = session.interrupted.reply if session.interrupted is not None else None
    error: str | None = None
    outcome: Outcome = "failed"
    try:
        if agent is not None:
            async with aclosing(_updates(agent, session, run)) as updates:
                async for value in updates:
                    try:
                        update = checked_update(value)
                        await _store(session, update, run)
                    except (InvalidUpdate, InvalidEvent, EventTooLarge) as problem:
                        # The updates that follow are stored all the same.
                        error = error or f"an update of the agent cannot be stored: {problem}"
                        continue
                    reply = update.message if isinstance(update, Reply) else reply
    except _StoreFailed as problem:
        if isinstance(problem.error, ConversationIsDeleted):
            outcome = "abandoned"
        elif not isinstance(problem.error, InputError):
            raise problem.error from None
        error = f"an update of the agent cannot be stored: {problem.error}"
    except Exception as problem:
        error = str(problem) if isinstance(problem, AgentError) else f"{type(problem).__name__}: {problem}"
    if error is None:
        await run(session.finish("answered", None))
        return Answered(reply)
    error = printable(error, 2000)
    await run(session.finish(outcome, error))
    return Answered(reply, error)


async def _updates(agent: Answer, session: AnswerSession, run: RunCoroutine) -> AsyncGenerator[Update, None]:
    """Yield an agent's updates; after an interrupted answer, those that are missing.

    An agent that can resume is asked for the task that it was working on. Any other agent receives the message again,
    unless it has answered: a function that would have yielded more after its first message is not called twice.
    """
    interrupted, resume = session.interrupted, resumption(agent)
    context = replace(session.context, history=lambda: run(session.context.history()))
    if interrupted is not None:
        task = interrupted.task
        if task is not None and resume is not None and (interrupted.is_open or interrupted.reply is None):
            try:
                async with closing(resume(task["id"], context)) as updates:
                    async for update in updates:
                        if interrupted.reply is None or not isinstance(update, Reply):
                            yield update
            except TaskUnknown:
                pass  # raised before any update
            else:
                return
        if interrupted.is_complete:
            if interrupted.reply is None and (message := interrupted.final_message()) is not None:
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


async def _store(session: AnswerSession, update: Update, run: RunCoroutine) -> None:
    try:
        await run(session.record(update))
    except (InvalidUpdate, InvalidEvent, EventTooLarge):
        raise
    except Exception as error:
        raise _StoreFailed(error) from error


@dataclass(frozen=True, slots=True)
class InterruptedAnswer:
    """The stored part of an answer that was interrupted, such as by the end of its process.

    Attributes:
        reply: the last message of the answer.
        task: the last task that the agent worked on, as wire JSON.
    """

    reply: Json | None
    task: Json | None

    @property
    def is_open(self) -> bool:
        """Whether the agent may still be working on the task."""
        status = {} if self.task is None else self.task["status"]  # agents may send any value
        return isinstance(status, dict) and status_of(status.get("state")) in OPEN

    @property
    def is_complete(self) -> bool:
        """Whether the agent has answered: by a message, or by ending its work on the task."""
        return self.reply is not None or (self.task is not None and not self.is_open)

    def final_message(self) -> Json | None:
        """Return a message that can replace the missing reply."""
        tracker = TaskTracker()
        if self.task is not None:
            tracker.apply(TaskSnapshot(self.task))
        return tracker.final_message()


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
        interrupted: an earlier answer that was interrupted; None for a message that no agent has answered yet.
    """

    def __init__(
        self,
        writer: Writer,
        lease: Lease,
        accepted: Accepted,
        context: Context,
        recording: Recording,
        fold: ConversationFold,
        interrupted: InterruptedAnswer | None,
        on_release: Callable[[], None],
    ) -> None:
        self.accepted = accepted
        self.context = context
        self.interrupted = interrupted
        self._writer = writer
        self._lease = lease
        self._recording = recording
        self._on_release = on_release
        self._known_events = fold.caused_by(accepted.event_id)
        self._unfinished = {task.given_id for task in fold.unfinished_tasks(accepted.event_id)}

    async def record(self, update: Update) -> None:
        """Store an update, durably.

        Raises:
            AnswerTaken: another process is answering, or has answered.
        """
        update = storable(update)
        match update:
            case TaskSnapshot(task):
                self._unfinished.discard(task["id"])
            case StatusUpdate() | ArtifactUpdate():
                self._unfinished.discard(update.task_id)
        events = self._recording.events_of(update)
        for start in range(0, len(events), MAX_EVENTS):
            part = events[start : start + MAX_EVENTS]
            try:
                await self._append(part)
            except EventTooLarge as error:
                for event in part:
                    await self._append(split_event(event, error.limit))

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """Store the outcome, so that the message is no longer pending.

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
            reason = {"error": error or _INTERRUPTED}
            failed = TaskStatusChanged(task_id=each, status=TaskStatus.FAILED, metadata=reason)
            events.append(NewEvent(failed, actor="system", metadata=Metadata(causation_id=str(message))))
        answered = answered_event(MessageAnswered(message_id=message, outcome=outcome, error=error, task_id=task_id))
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


def answered_event(answered: MessageAnswered) -> NewEvent:
    """Return the event that ends the waiting of a message. Its id is derived, so it can be stored only once."""
    return NewEvent(answered, derived_uuid("answered", str(answered.message_id)), "system")


class Lease:
    """A lease that this manager holds.

    Attributes:
        key: the message.
        version: of its conversation when the lease was taken.
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
            self._renewer = asyncio.create_task(self._renew())
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
            self._worker = asyncio.create_task(self._work())

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
                _log.warning("the leases of %d message(s) could not be renewed: %s", len(held), error)
                continue
            for key, lease in held.items():
                lease.is_lost = lease.is_lost or key not in renewed
