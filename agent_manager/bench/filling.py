"""Filling a log: imports of many conversations at once, through the store's own append."""

from __future__ import annotations

from collections.abc import Callable

from agent_manager.bench.messages import conversations
from agent_manager.bench.rates import together
from eventstore import Append, EventStore

_CONVERSATIONS = 100
_LARGEST = 10_000
_TOGETHER = 2
"""Imports under way at once: while one is encoded, the server stores another."""


async def fill(store: EventStore, seed: str, events: int, told: Callable[[int], None] = lambda _: None) -> None:
    """Appends so many events, in conversations of equal length.

    Args:
        told: called with the number of events that are in, now and then.
    """
    sizes = [min(_LARGEST, events - begin) for begin in range(0, events, _LARGEST)]
    waiting = iter(list(enumerate(sizes)))
    stored = 0

    async def work() -> None:
        nonlocal stored
        for number, size in waiting:
            await store.append_all(_appends(f"{seed}/{number}", size))
            stored += size
            told(stored)

    await together(work() for _ in range(_TOGETHER))


async def lengthen(store: EventStore, seed: str, events: int) -> Append:
    """Appends one conversation of so many events, and returns an append that would follow."""
    (messages,) = conversations(seed, 1, events + 1)
    conversation_id = messages[0].conversation_id
    for begin in range(0, events, _LARGEST):
        end = min(begin + _LARGEST, events)
        await store.append(conversation_id, [message.event() for message in messages[begin:end]])
    return Append(conversation_id, [messages[-1].event()])


def _appends(seed: str, events: int) -> list[Append]:
    each, more = divmod(events, _CONVERSATIONS)
    lengths = [each + (number < more) for number in range(_CONVERSATIONS)]
    made = conversations(seed, _CONVERSATIONS, max(lengths))
    return [
        Append(messages[0].conversation_id, [message.event() for message in messages[:length]])
        for messages, length in zip(made, lengths, strict=True)
        if length
    ]
