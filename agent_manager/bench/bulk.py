"""Imports: a thousand events in one append, against one set-based INSERT of the same rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent_manager.bench import bare
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.messages import Message, conversations
from agent_manager.bench.rates import drive
from agent_manager.bench.work import Bench, Side
from eventstore import Append

_TARGET = Target(0.5)
_EVENTS = 1000

T = TypeVar("T")


async def bulk(bench: Bench) -> list[Figure]:
    """One conversation of 1,000 events, and 100 conversations of 10."""

    async def append_one(_: int, given: list[Append]) -> None:
        await bench.store.append(given[0].conversation_id, given[0].events)

    async def append_all(_: int, given: list[Append]) -> None:
        await bench.store.append_all(given)

    async with bench.connection() as connection:

        async def insert(_: int, rows: list[bare.Row]) -> None:
            await bare.insert_many(connection, rows)

        figures = []
        for number, append, words in ((1, append_one, "append of 1,000"), (100, append_all, "append_all of 100 × 10")):
            ours, other = await bench.in_turn(
                words, [_side(bench, number, _appends, append), _side(bench, number, _rows, insert)]
            )
            what = f"{words} events / one INSERT from binary arrays"
            figures.append(Figure("bulk", what, "events/s", ours, other, _TARGET))
    return figures


def _appends(given: list[list[Message]]) -> list[Append]:
    return [Append(messages[0].conversation_id, [message.event() for message in messages]) for messages in given]


def _rows(given: list[list[Message]]) -> list[bare.Row]:
    return [bare.row(message) for messages in given for message in messages]


def _side(
    bench: Bench,
    number: int,
    prepare: Callable[[list[list[Message]]], T],
    append: Callable[[int, T], Awaitable[None]],
) -> Side:
    """Measures imports of that many conversations, one after the other, in events a second."""
    count = 1 if bench.scale.quick else 3

    async def measure(seed: str) -> float:
        imports = [prepare(conversations(f"{seed}/{index}", number, _EVENTS // number)) for index in range(count + 1)]
        await drive([imports[:1]], append, 60)  # statements are prepared, plans made
        return await drive([imports[1:]], append, 60) * _EVENTS

    return measure
