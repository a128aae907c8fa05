"""Questions that come while an answer is under way are asked together: one query at a time, however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")

MOST_AT_ONCE = 500
PAUSE_SECONDS = 0.02
"""Between a query that did not find all and the next: so many guesses a second cost at most fifty queries."""


class Together(Generic[Question, Answer]):
    """Asks for many at a time, so that a flood of questions to which there is no answer costs few queries.

    How long somebody waits depends on what others asked before, never on their own question.

    Args:
        ask: the answers to some questions; what is missing in them has none. It is awaited by one task at a time.
    """

    def __init__(self, ask: Callable[[list[Question]], Awaitable[dict[Question, Answer]]]) -> None:
        self._ask = ask
        self._waiting: dict[Question, asyncio.Future[Answer | None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._next_at = 0.0

    async def answer(self, question: Question) -> Answer | None:
        """The answer; None where there is none. The question is asked after the call, never before.

        Raises:
            Exception: whatever asking raised, to everybody who waited for it.
        """
        future = self._waiting.get(question)
        if future is None:
            future = self._waiting[question] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await asyncio.shield(future)  # somebody else may wait for it too

    async def close(self) -> None:
        """Waits for what is being asked."""
        if self._asking is not None:
            await self._asking

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                if (pause := self._next_at - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                questions = list(self._waiting)[:MOST_AT_ONCE]
                futures = [self._waiting.pop(question) for question in questions]
                try:
                    answers = await self._ask(questions)
                except Exception as error:
                    for future in futures:
                        future.set_exception(error)
                        future.exception()  # seen, also where nobody waits any more
                else:
                    if len(answers) < len(questions):
                        self._next_at = time.monotonic() + PAUSE_SECONDS
                    for question, future in zip(questions, futures, strict=True):
                        future.set_result(answers.get(question))
        finally:
            self._asking = None
