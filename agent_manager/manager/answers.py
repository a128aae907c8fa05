"""Answering a message, whatever the conversations are kept in: once, and with an outcome whatever the agent does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from agent_manager.agents.answering import Answer, Context, Reply, TaskSeen, Update, resumption
from agent_manager.agents.closing import LastTask
from agent_manager.agents.errors import AgentError, InvalidUpdate, TaskUnknown
from agent_manager.agents.updates import understood
from agent_manager.agents.wire import OPEN, status_of
from agent_manager.manager.errors import AnswerTaken
from agent_manager.manager.views import Accepted, Json
from eventstore.errors import ConversationIsDeleted, EventTooLarge, InputError, InvalidEvent, printable

Outcome: TypeAlias = Literal["answered", "failed", "abandoned"]


@dataclass(frozen=True, slots=True)
class Earlier:
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

    def last_words(self) -> Json | None:
        """Return a message that can stand for the reply that is missing."""
        task = LastTask()
        if self.task is not None:
            task.take(TaskSeen(self.task))
        return task.last_words()


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
    def earlier(self) -> Earlier | None:
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
                        update = understood(said)
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
        if earlier.reply is None and (message := earlier.last_words()) is not None:
            yield Reply(message)
        return
    async with _listening(answer(session.accepted.message, session.context)) as updates:
        async for update in updates:
            yield update


def _lacks_something(earlier: Earlier) -> bool:
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
