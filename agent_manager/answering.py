"""Answering a message: exactly one process answers, and the outcome is stored whatever the agent does.

A manager takes the lease of a message before it asks an agent, renews its leases while it works, and releases them. A
process that ends without releasing stops renewing, and after :data:`LEASE_SECONDS` another one may take its messages
over. The server's clock decides.

A lease keeps two processes from asking an agent at the same time; it cannot keep a process that was suspended from
writing after its lease has expired. That is excluded where answers are stored, see
:class:`~agent_manager.answering.LogSession`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias
from uuid import uuid4

from agent_manager.a2a import OPEN, status_of
from agent_manager.agents.agent import (
    Answer,
    ArtifactUpdate,
    Context,
    Reply,
    StatusUpdate,
    TaskSnapshot,
    TaskTracker,
    Update,
    resumption,
)
from agent_manager.agents.recorder import Recording, fitting, storable, task_uuid
from agent_manager.agents.updates import checked_update
from agent_manager.conversation import Accepted, ConversationFold, Json
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
from eventstore.ids import derived_uuid
from eventstore.sync import Portal
from eventstore.vocabulary import TaskStatus, TaskStatusChanged

# Leases: which process is answering which message

LEASE_SECONDS = 10.0
"""A process that ended is noticed after so long, and one that pauses for longer loses its messages to others."""
RENEW_SECONDS = 3.0
"""Between renewals, so that two of them may fail before a lease expires."""

_log = logging.getLogger(__name__)


class Lease:
    """A lease that this manager has.

    Attributes:
        key: the message.
        version: of its conversation when the lease was taken, or a later one.
        is_lost: whether another holder has taken it since.
    """

    def __init__(self, key: Key, version: int) -> None:
        self.key = key
        self.version = version
        self.is_lost = False


class Leases:
    """The leases of one manager. What many take and release at the same time takes two statements."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._holder = uuid4()
        self._held: dict[Key, Lease] = {}
        self._wanted: dict[Key, asyncio.Future[LeaseStatus | None]] = {}
        self._unwanted: set[Key] = set()
        self._serving: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, key: Key) -> Lease | LeaseStatus | None:
        """Take the lease of a message that this manager does not hold.

        Return what is known of the lease if another holder has it; None if that has just released it: try again.
        """
        wanted = self._wanted[key] = asyncio.get_running_loop().create_future()
        self._serve()
        try:
            leased: LeaseStatus | None = await asyncio.shield(wanted)
        except asyncio.CancelledError:
            wanted.add_done_callback(lambda _: self._give_up(key))
            raise
        if leased is None or leased.holder != self._holder:
            return leased
        lease = self._held[key] = Lease(key, leased.version)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease, soon. If the server cannot be reached, it expires by itself."""
        if self._held.pop(lease.key, None) is not None:
            self._give_up(lease.key)

    async def close(self) -> None:
        """Release what is still held."""
        if self._renewing is not None:
            await cancel_and_wait((self._renewing,))
        for lease in list(self._held.values()):
            self.release(lease)
        if self._serving is not None:
            await self._serving

    def _give_up(self, key: Key) -> None:
        self._unwanted.add(key)
        self._serve()

    def _serve(self) -> None:
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve_all())

    async def _serve_all(self) -> None:
        while self._wanted or self._unwanted:
            wanted, self._wanted = self._wanted, {}
            unwanted, self._unwanted = self._unwanted, set()
            try:
                await self._release(unwanted)
                leased = await self._log.lease_answers(wanted, self._holder, LEASE_SECONDS) if wanted else {}
            except BaseException as error:
                for future in wanted.values():
                    future.set_exception(error if isinstance(error, Exception) else StoreClosed())
                    future.exception()  # seen, even if nobody waits any more
                if not isinstance(error, Exception):
                    raise
            else:
                for key, future in wanted.items():
                    future.set_result(leased.get(key))

    async def _release(self, keys: set[Key]) -> None:
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


# Answering a message, whatever the conversations are kept in: once, and with an outcome whatever the agent does

Outcome: TypeAlias = Literal["answered", "failed", "abandoned"]


@dataclass(frozen=True, slots=True)
class InterruptedAnswer:
    """What is stored of an answering that was cut off, such as by the end of its process.

    Attributes:
        reply: the last message of the answer.
        task: the last task that the agent worked on, as its agent would show it.
    """

    reply: Json | None
    task: Json | None

    @property
    def is_open(self) -> bool:
        """Whether the agent may still be working on the task."""
        status = {} if self.task is None else self.task["status"]  # an agent may have sent anything in its place
        return isinstance(status, dict) and status_of(status.get("state")) in OPEN

    @property
    def is_over(self) -> bool:
        """Whether the agent has answered: with a message, or by ending its work on the task."""
        return self.reply is not None or (self.task is not None and not self.is_open)

    def final_message(self) -> Json | None:
        """Return a message that can stand for the reply that is missing."""
        task = TaskTracker()
        if self.task is not None:
            task.apply(TaskSnapshot(self.task))
        return task.final_message()


class Session(Protocol):
    """The storing of one answer, which nobody else stores meanwhile.

    Attributes:
        accepted: the message as its agent may be sent it.
        context: what the agent may know.
        earlier: what an earlier answering has left; None for a message that no agent has answered yet.
    """

    @property
    def accepted(self) -> Accepted:
        """See the class."""

    @property
    def context(self) -> Context:
        """See the class."""

    @property
    def earlier(self) -> InterruptedAnswer | None:
        """See the class."""

    async def record(self, update: Update) -> None:
        """Store what the agent says, durably.

        Raises:
            AnswerTaken: another process is answering, or has answered.
        """

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """Store the outcome: the message waits no longer. Raises AnswerTaken as :meth:`record` does."""

    async def release(self) -> None:
        """Let others answer, if it was not finished."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How an answer ended.

    Attributes:
        reply: its last message.
        error: what went wrong, in words; None if nothing did.
    """

    reply: Json | None
    error: str | None = None


async def answer_once(
    answer: Answer | None,
    begin: Callable[[], Awaitable[Session | None]],
    reply: Callable[[], Awaitable[Json | None]],
) -> Answered:
    """Have a message answered by this process or by another one, and return how it ended.

    Args:
        answer: the agent.
        begin: begins to store the answer; returns None if it is stored already.
        reply: returns the last message of the stored answer.
    """
    while True:
        session = await begin()
        if session is None:
            return Answered(await reply())
        try:
            return await ask(answer, session)
        except AnswerTaken:
            continue
        finally:
            await session.release()


async def ask(answer: Answer | None, session: Session) -> Answered:
    """Have an agent answer, in the event loop that this is called in, and store what comes as it comes.

    What the agent raises is stored as the outcome. If the conversation is deleted meanwhile, the answer is abandoned.

    Raises:
        AnswerTaken: another process is answering, or has answered.
        EventStoreError: the store failed; the message stays pending.
    """
    reply: Json | None = session.earlier.reply if session.earlier is not None else None
    error: str | None = None
    outcome: Outcome = "failed"
    try:
        if answer is not None:
            async with aclosing(_updates(answer, session)) as updates:
                async for said in updates:
                    try:
                        update = checked_update(said)
                        await _store(session, update)
                    except (InvalidUpdate, InvalidEvent, EventTooLarge) as problem:
                        # What follows is stored all the same.
                        error = error or f"what the agent said cannot be stored: {problem}"
                        continue
                    reply = update.message if isinstance(update, Reply) else reply
    except _NotStored as problem:
        if isinstance(problem.error, ConversationIsDeleted):
            outcome = "abandoned"
        elif not isinstance(problem.error, InputError):
            raise problem.error from None
        error = f"what the agent said cannot be stored: {problem.error}"
    except Exception as problem:
        error = str(problem) if isinstance(problem, AgentError) else f"{type(problem).__name__}: {problem}"
    if error is None:
        await session.finish("answered", None)
        return Answered(reply)
    error = printable(error, 2000)
    await session.finish(outcome, error)
    return Answered(reply, error)


async def _updates(answer: Answer, session: Session) -> AsyncGenerator[Update, None]:
    """What the agent says; after an answering that was cut off, what is missing of it.

    An agent that can be asked after a task is asked after the one that it was working on. Otherwise the message is sent
    again, unless the agent has answered it: a function that was to say more after its first message is not asked twice.
    """
    earlier, resume = session.earlier, resumption(answer)
    if earlier is not None and earlier.task is not None and resume is not None and _lacks_something(earlier):
        try:
            async with _listening(resume(earlier.task["id"], session.context)) as updates:
                async for update in updates:
                    if earlier.reply is None or not isinstance(update, Reply):
                        yield update
        except TaskUnknown:
            pass  # which is raised before anything is said
        else:
            return
    if earlier is not None and earlier.is_over:
        if earlier.reply is None and (message := earlier.final_message()) is not None:
            yield Reply(message)
        return
    async with _listening(answer(session.accepted.message, session.context)) as updates:
        async for update in updates:
            yield update


def _lacks_something(earlier: InterruptedAnswer) -> bool:
    return earlier.is_open or earlier.reply is None


class _NotStored(Exception):
    """Tells errors of the store from those of the agent, which may be of any type."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


async def _store(session: Session, update: Update) -> None:
    try:
        await session.record(update)
    except (InvalidUpdate, InvalidEvent, EventTooLarge):
        raise
    except Exception as error:
        raise _NotStored(error) from error


@asynccontextmanager
async def _listening(updates: AsyncIterator[Update]) -> AsyncIterator[AsyncIterator[Update]]:
    try:
        yield updates
    finally:
        if (close := getattr(updates, "aclose", None)) is not None:
            await close()


# The storing of an answer in the log, as it comes

CUT_OFF = "the answering was cut off, and the message was answered anew"


class LogSession:
    """Appends what an agent says to the conversation that it answers in.

    No two sessions of one message can both store an answer, whatever becomes of their leases. Each append expects the
    version up to which the session knows the conversation. Before it appends it compares the number of events that are
    caused by the message with those that it knows: what was there when it began, and what it has appended itself. If
    another session has appended one, this one has either seen that event, and ends, or expects a version that is in the
    past, and is refused.

    Args:
        fold: the conversation, at or after the version at which the lease was taken.
        earlier: what an answering that was cut off has left there.
        answering: held until the session is released.
    """

    def __init__(
        self,
        writer: Writer,
        leases: Leases,
        lease: Lease,
        accepted: Accepted,
        context: Context,
        recording: Recording,
        fold: ConversationFold,
        earlier: InterruptedAnswer | None,
        answering: asyncio.Lock,
    ) -> None:
        self.accepted = accepted
        self.context = context
        self.earlier = earlier
        self._writer = writer
        self._leases = leases
        self._lease = lease
        self._recording = recording
        self._answering = answering
        self._known = fold.caused_by(accepted.event_id)
        self._unfinished = {task.given_id for task in fold.unfinished_tasks(accepted.event_id)}

    async def record(self, update: Update) -> None:
        """Store what the agent says, durably."""
        update = storable(update)
        match update:
            case TaskSnapshot(task):
                self._unfinished.discard(task["id"])
            case StatusUpdate() | ArtifactUpdate():
                self._unfinished.discard(update.task_id)
        events = self._recording.events_of(update)
        for start in range(0, len(events), MAX_EVENTS):
            await self._divide(events[start : start + MAX_EVENTS])

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """Store the outcome. Tasks of an answering that was cut off, of which the agent says nothing any more, end."""
        message, task_id = self.accepted.event_id, self._recording.task_id
        events = [] if error is None else self._recording.failed(error)
        scope = self._writer.tenant, self.accepted.conversation
        for left in {task_uuid(*scope, text) for text in self._unfinished} - ({task_id} if events else set()):
            failed = TaskStatusChanged(task_id=left, status=TaskStatus.FAILED, metadata={"error": error or CUT_OFF})
            events.append(NewEvent(failed, actor="system", metadata=Metadata(causation_id=str(message))))
        answered = MessageAnswered(message_id=message, outcome=outcome, error=error, task_id=task_id)
        try:
            await self._append([*events, answered_event(answered)])
        except ConversationIsDeleted:  # its tasks stay as they are
            await self._append([answered_event(answered)])

    async def release(self) -> None:
        """Let others answer, if it was not finished."""
        self._leases.release(self._lease)
        self._answering.release()

    async def _divide(self, events: Sequence[NewEvent]) -> None:
        """Append events, those that are too large in several."""
        try:
            await self._append(events)
        except EventTooLarge as error:
            for event in events:
                await self._append(fitting(event, error.limit))

    async def _append(self, events: Sequence[NewEvent]) -> None:
        await self._writer.add(self.accepted.conversation, events, self._check)
        self._known += len(events)

    def _check(self, fold: ConversationFold) -> None:
        message = self.accepted.event_id
        if self._lease.is_lost or message in fold.outcomes or fold.caused_by(message) != self._known:
            raise AnswerTaken(f"another process answers message {message}, or has answered it")


def answered_event(answered: MessageAnswered) -> NewEvent:
    """The event that ends the waiting of a message: there is but one of its id."""
    return NewEvent(answered, derived_uuid("answered", str(answered.message_id)), "system")


# A session that is used from another event loop than the manager's


class RemoteSession:
    """Has each step of the storing done in the manager's loop."""

    def __init__(self, portal: Portal, session: Session) -> None:
        self._portal = portal
        self._session = session

    @property
    def accepted(self) -> Accepted:
        """The message as its agent may be sent it."""
        return self._session.accepted

    @property
    def context(self) -> Context:
        """What the agent may know."""
        context = self._session.context

        async def history() -> list[Json]:
            async def read() -> list[Json]:
                return await context.history()

            return await self._portal.run(read())

        return replace(context, history=history)

    @property
    def earlier(self) -> InterruptedAnswer | None:
        """What an earlier answering has left."""
        return self._session.earlier

    async def record(self, update: Update) -> None:
        """Store what the agent says, durably."""
        await self._portal.run(self._session.record(update))

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """Store the outcome: the message waits no longer."""
        await self._portal.run(self._session.finish(outcome, error))

    async def release(self) -> None:
        """Let others answer, if it was not finished. A manager that is closed has nobody waiting."""
        with suppress(StoreClosed):
            await self._portal.run(self._session.release())
