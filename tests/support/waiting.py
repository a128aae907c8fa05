"""Waiting for a condition by evaluating it repeatedly until a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 30.0
"""Generous: a test waits so long only to fail."""
_LOOK_SECONDS = 0.02


def until(look: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """Return the result of ``look`` once it is true.

    Raises:
        AssertionError: it has not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"after {seconds} seconds still not: {what}"
        time.sleep(_LOOK_SECONDS)
    return seen


async def until_async(look: Callable[[], Awaitable[T]], what: str, seconds: float = SECONDS) -> T:
    """Return the result of the coroutine function ``look`` once it is true."""
    deadline = time.monotonic() + seconds
    while not (seen := await look()):
        assert time.monotonic() < deadline, f"after {seconds} seconds still not: {what}"
        await asyncio.sleep(_LOOK_SECONDS)
    return seen


async def seconds_of_delay(look: Callable[[], Awaitable[bool]], what: str) -> float:
    """Wait until a condition is true, and return how many seconds from now the last check that found it false began.

    The duration of the checks themselves does not count, so a busy machine does not make the result larger.
    """
    began = last = time.monotonic()

    async def timed() -> bool:
        nonlocal last
        started = time.monotonic()
        if await look():
            return True
        last = started
        return False

    await until_async(timed, what)
    return last - began
