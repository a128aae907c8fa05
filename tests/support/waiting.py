"""Waiting for something to become true: looked at again and again until a deadline, never slept for."""

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
    """What ``look`` returns, once that is true.

    Raises:
        AssertionError: it has not become so within the time.
    """
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"after {seconds} seconds still not: {what}"
        time.sleep(_LOOK_SECONDS)
    return seen


async def until_async(look: Callable[[], Awaitable[T]], what: str, seconds: float = SECONDS) -> T:
    """The same for a coroutine."""
    deadline = time.monotonic() + seconds
    while not (seen := await look()):
        assert time.monotonic() < deadline, f"after {seconds} seconds still not: {what}"
        await asyncio.sleep(_LOOK_SECONDS)
    return seen
