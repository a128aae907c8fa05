"""Reading a conversation into typed events, against the same SELECT by the bare driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.messages import conversation
from agent_manager.bench.rates import no_collection
from agent_manager.bench.work import Bench, Side
from eventstore.database.queries import query

_EVENTS = 500
_SELECT = query("agent_manager.bench", "bare_read")


async def reading(bench: Bench) -> list[Figure]:
    """A conversation of 500 events, as it comes and with the typed content of each looked at."""
    messages = conversation("reading", _EVENTS)
    conversation_id = messages[0].conversation_id
    await bench.store.append(conversation_id, [message.event() for message in messages])
    async with bench.connection() as connection:

        async def ours() -> int:
            return len([event async for event in bench.store.read(conversation_id)])

        async def ours_looked_at() -> int:
            return len([event.data async for event in bench.store.read(conversation_id)])

        async def other() -> int:
            cursor = await connection.execute(_SELECT, (bench.store.tenant, conversation_id), prepare=True)
            return len(await cursor.fetchall())

        plain, looked_at, bare = await bench.in_turn(
            "reading", [_side(bench, act) for act in (ours, ours_looked_at, other)]
        )
    what = f"{_EVENTS} events read into typed objects / the same SELECT into tuples"
    return [
        Figure("reading", what, "s", plain, bare, Target(1.5, at_least=False)),
        Figure("reading", f"{what}, the typed content of each made", "s", looked_at, bare),
    ]


def _side(bench: Bench, act: Callable[[], Awaitable[int]]) -> Side:
    """Seconds that one reading takes, on average."""

    async def measure(_seed: str) -> float:
        assert await act() == _EVENTS
        with no_collection():
            begin = perf_counter()
            for _ in range(bench.scale.rounds):
                await act()
            return (perf_counter() - begin) / bench.scale.rounds

    return measure
