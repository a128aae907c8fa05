"""Having a message answered, whatever the conversations are kept in: once, and with an end whatever the agent does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from agent_manager.agents.answering import Answer, Context, Reply, Update
from agent_manager.agents.errors import AgentError, InvalidUpdate
from agent_manager.agents.updates import understood
from agent_manager.manager.views import Accepted, Json
from eventstore.errors import EventStoreError, EventTooLarge, InputError, InvalidEvent, printable

Outcome: TypeAlias = Literal["answered", "failed", "abandoned"]


class AnswerFailed(EventStoreError):
    """The agent failed. That, and what it said before, is stored; the message does not wait any longer."""


class Session(Protocol):
    """The storing of one answer, which nobody else stores meanwhile."""

    async def record(self, update: Update) -> None:
        """Stores what the agent says, durably."""

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """The message waits no longer."""

    async def release(self) -> None:
        """Lets others answer, where it was not finished."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How an answer ended.

    Attributes:
        reply: its last message.
        error: what went wrong, in words; None where nothing did.
    """

    reply: Json | None
    error: str | None = None


async def ask(answer: Answer | None, accepted: Accepted, context: Context, session: Session) -> Answered:
    """Has an agent answer, in the event loop that this is called in, and stores what comes as it comes.

    Whatever the agent raises is stored as the outcome.

    Raises:
        EventStoreError: the store failed; the message stays pending.
    """
    reply: Json | None = None
    error: str | None = None
    try:
        if answer is not None:
            async with _listening(answer(accepted.message, context)) as updates:
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
        if not isinstance(problem.error, InputError):
            raise problem.error from None
        error = f"what the agent said cannot be stored: {problem.error}"
    except Exception as problem:
        error = str(problem) if isinstance(problem, AgentError) else f"{type(problem).__name__}: {problem}"
    if error is None:
        await session.finish("answered", None)
        return Answered(reply)
    error = printable(error, 2000)
    await session.finish("failed", error)
    return Answered(reply, error)


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
