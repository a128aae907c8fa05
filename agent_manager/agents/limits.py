"""Time limits on an agent's answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from agent_manager.agents.errors import AgentStalled

T = TypeVar("T")


async def within(
    updates: AsyncGenerator[T, None], *, silence: float, total: float, who: str
) -> AsyncGenerator[T, None]:
    """Passes updates on.

    Args:
        silence: seconds that the agent may take for an update.
        total: seconds that it may take for all of them, without the time that whoever listens takes.

    Raises:
        AgentStalled: it took longer.
    """
    left = total
    async with aclosing(updates):
        while True:
            began = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(min(silence, left)) as limit:
                    update = await anext(updates)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not limit.expired():
                    raise
                raise AgentStalled(_reason(who, silence, total, left)) from None
            left -= asyncio.get_running_loop().time() - began
            yield update


def _reason(who: str, silence: float, total: float, left: float) -> str:
    if silence <= left:
        return f"{who}: said nothing for {silence:g} seconds"
    return f"{who}: did not come to an end within {total:g} seconds"
