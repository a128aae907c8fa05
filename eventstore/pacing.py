"""Replaying events at the pace at which they were appended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from eventstore.errors import InputError
from eventstore.events import Event


async def paced(
    events: AsyncIterator[Event], speed: float = 1.0, longest_pause: float | None = None
) -> AsyncGenerator[Event, None]:
    """Yield events after the pauses between their ``timestamp``; the first one at once.

    The pauses are kept as a whole: a consumer that is slow with one event gets the next ones without a pause until it
    has caught up. A server's clock that stepped back makes no pause.

    Args:
        speed: by which the pauses are divided; ``math.inf`` makes none.
        longest_pause: seconds between two events at most.

    Raises:
        InputError: the speed is not above 0, or the pause is negative.
    """
    for name, value, is_valid in (
        ("speed", speed, _is_number(speed) and speed > 0),
        ("longest_pause", longest_pause, longest_pause is None or (_is_number(longest_pause) and longest_pause >= 0)),
    ):
        if not is_valid:
            raise InputError(f"{name}: {value!r:.80} is not a number {'above' if name == 'speed' else 'from'} 0")
    clock = asyncio.get_running_loop().time
    due, before = clock(), None
    async with aclosing(cast("AsyncGenerator[Event, None]", events)) as source:
        async for event in source:
            if before is not None:
                pause = max(0.0, (event.timestamp - before).total_seconds() / speed)
                due += pause if longest_pause is None else min(pause, longest_pause)
            before = event.timestamp
            if (remaining := due - clock()) > 0:
                await asyncio.sleep(remaining)
            yield event


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
