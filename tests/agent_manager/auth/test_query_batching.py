"""Questions that come while an answer is under way are asked together."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent_manager.auth.authenticator import MOST_AT_ONCE, PAUSE_SECONDS, QueryBatcher
from eventstore.errors import ServerError


class Oracle:
    """Answers even numbers with their half, when it is told to go on."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.fails = False

    async def ask(self, questions: list[int]) -> dict[int, int]:
        self.asked.append(questions)
        await self.go_on.wait()
        if self.fails:
            raise ServerError("away")
        return {question: question // 2 for question in questions if question % 2 == 0}


async def begun(together: QueryBatcher[int, int], questions: list[int]) -> list[asyncio.Task[int | None]]:
    tasks = [asyncio.create_task(together.answer(question)) for question in questions]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_one_question_is_under_way_and_the_others_follow_together() -> None:
    oracle = Oracle()
    together = QueryBatcher(oracle.ask)
    tasks = await begun(together, [2]) + await begun(together, [4, 5, 4])
    assert oracle.asked == [[2]]
    oracle.go_on.set()
    assert await asyncio.gather(*tasks) == [1, 2, None, 2]
    assert oracle.asked == [[2], [4, 5]]


async def test_an_answer_under_way_is_not_given_to_who_asks_later() -> None:
    """It may be from before something that the later one knows of."""
    oracle = Oracle()
    together = QueryBatcher(oracle.ask)
    tasks = await begun(together, [2]) + await begun(together, [2])
    oracle.go_on.set()
    assert await asyncio.gather(*tasks) == [1, 1]
    assert oracle.asked == [[2], [2]]


async def test_a_flood_is_asked_in_parts() -> None:
    oracle = Oracle()
    oracle.go_on.set()
    together = QueryBatcher(oracle.ask)
    tasks = await begun(together, list(range(2 * MOST_AT_ONCE + 1)))
    assert await asyncio.gather(*tasks) == [n // 2 if n % 2 == 0 else None for n in range(2 * MOST_AT_ONCE + 1)]
    assert max(map(len, oracle.asked)) == MOST_AT_ONCE


async def test_a_failure_is_everybodys_and_the_next_question_is_asked_again() -> None:
    oracle = Oracle()
    together = QueryBatcher(oracle.ask)
    tasks = await begun(together, [2, 2, 4])
    oracle.fails = True
    oracle.go_on.set()
    for task in tasks:
        with pytest.raises(ServerError, match="away"):
            await task
    oracle.fails = False
    assert await together.answer(4) == 2


async def test_who_gives_up_takes_nobody_along() -> None:
    oracle = Oracle()
    together = QueryBatcher(oracle.ask)
    impatient, patient = await begun(together, [2, 2])
    impatient.cancel()
    oracle.go_on.set()
    assert await patient == 1
    assert impatient.cancelled()
    await together.close()


async def test_guesses_one_after_the_other_share_few_queries() -> None:
    oracle = Oracle()
    oracle.go_on.set()
    together = QueryBatcher(oracle.ask)
    for odd in range(1, 21, 2):
        assert await together.answer(odd) is None
    began = time.monotonic()
    guesses = [asyncio.create_task(_guess(together, began + 0.5, number)) for number in range(3)]
    assert await together.answer(2) == 1
    await asyncio.gather(*guesses)
    took = time.monotonic() - began
    assert len(oracle.asked) <= 10 + took / PAUSE_SECONDS + 1


async def _guess(together: QueryBatcher[int, int], until: float, number: int) -> None:
    while time.monotonic() < until:
        assert await together.answer(2 * number + 1) is None


async def test_questions_that_have_answers_wait_for_nothing() -> None:
    oracle = Oracle()
    oracle.go_on.set()
    together = QueryBatcher(oracle.ask)
    began = time.monotonic()
    for number in range(200):
        assert await together.answer(2 * number) == number
    assert time.monotonic() - began < 200 * PAUSE_SECONDS
