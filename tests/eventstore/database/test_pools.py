"""Connections are shared fairly: tenants take turns, callers of one are served in order, and none takes all."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import PoolTimeout

from eventstore.database import pools
from eventstore.database.pools import FairQueue

LONG = 60.0


class Callers:
    """Tasks that hold permits until they are stopped; ``served`` lists them in the order in which they got one."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self.served: list[str] = []
        self._stop: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, *names: str) -> None:
        """Start callers, one by one; a name is that of the tenant and a number, such as ``a1``."""
        for name in names:
            self._stop[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._hold(name))
            await settled()

    async def stop(self, *names: str) -> None:
        """End callers, one by one, whether they were served or not."""
        for name in names:
            if name in self.served:
                self._stop[name].set()
            else:
                self._tasks[name].cancel()
            await settled()

    async def _hold(self, name: str) -> None:
        async with self.queue.permit(None if name[0] == "-" else name[0], LONG):
            self.served.append(name)
            await self._stop[name].wait()


async def settled() -> None:
    """Let every task run until it waits for something."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_tenants_take_turns_and_callers_of_a_tenant_are_served_in_order() -> None:
    callers = Callers(FairQueue(1))
    await callers.start("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert callers.served == ["a1"]
    for _ in range(7):
        await callers.stop(callers.served[-1])
    assert callers.served == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_a_single_tenant_gets_all_permits_and_one_of_several_a_quarter() -> None:
    callers = Callers(FairQueue(8))
    await callers.start(*(f"a{number}" for number in range(10)))
    assert callers.served == [f"a{number}" for number in range(8)]
    await callers.start("b1")
    await callers.stop("a0")
    assert callers.served[8:] == ["b1"]
    await callers.stop("a1", "a2", "a3", "a4", "a5")
    assert callers.served[9:] == []  # five are free, and a still holds its quarter
    await callers.stop("a6")
    assert callers.served[9:] == ["a8"]
    await callers.start("b2", "b3")
    assert callers.served[10:] == ["b2"]  # at once, although a waits


async def test_a_tenant_that_is_alone_again_gets_all_but_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "ALONE_SECONDS", 0.0)
    callers = Callers(FairQueue(8))
    await callers.start("b1", *(f"a{number}" for number in range(8)))
    assert callers.served == ["b1", "a0", "a1"], "b holds a connection"
    await callers.stop("b1")
    assert callers.served[3:] == ["a2", "a3", "a4", "a5"]
    await callers.start("b2", "c1")
    assert callers.served[7:] == ["b2", "c1"], "at once, although a waits"
    await callers.stop("a0", "a1", "a2", "a3", "a4")
    assert callers.served[9:] == ["a6"], "once it holds less than its quarter"


async def test_work_of_no_tenant_is_not_limited() -> None:
    callers = Callers(FairQueue(2))
    await callers.start("a1", "b1")
    await callers.stop("a1", "b1")
    await callers.start("-1", "-2", "a2")
    assert callers.served[2:] == ["-1", "-2"]
    await callers.stop("-1")
    assert callers.served[-1] == "a2"


async def test_a_cancelled_wait_takes_no_permit() -> None:
    callers = Callers(FairQueue(1))
    await callers.start("a1", "a2", "b1")
    await callers.stop("a2", "a1")
    assert callers.served == ["a1", "b1"]


async def test_a_permit_granted_during_a_cancellation_is_released() -> None:
    queue = FairQueue(1)
    async with AsyncExitStack() as first:
        await first.enter_async_context(queue.permit("a", LONG))
        waiting = asyncio.create_task(_pass_through(queue, "b"))
        await settled()
        await first.aclose()  # grants it; the task has not run since
        waiting.cancel()
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    await _pass_through(queue, "c")


async def test_a_wait_ends_with_a_timeout() -> None:
    queue = FairQueue(1)
    async with queue.permit("a", LONG):
        with pytest.raises(PoolTimeout, match="all connections were in use"):
            await _pass_through(queue, "b", 0.01)
    await _pass_through(queue, "b")


async def _pass_through(queue: FairQueue, tenant: str, timeout: float = LONG) -> None:
    async with queue.permit(tenant, timeout):
        pass


@given(
    st.integers(1, 9),
    st.lists(
        st.tuples(st.sampled_from(["ask", "ask", "stop"]), st.sampled_from("abc-"), st.integers(0, 9)), max_size=40
    ),
)
async def test_no_permit_is_lost_or_granted_twice(size: int, steps: list[tuple[str, str, int]]) -> None:
    callers = Callers(FairQueue(size))
    asked: list[str] = []
    stopped: set[str] = set()
    for number, (what, tenant, which) in enumerate(steps):
        if what == "ask":
            asked.append(f"{tenant}{number}")
            await callers.start(asked[-1])
        elif asked:
            name = asked[which % len(asked)]
            if name not in stopped:
                stopped.add(name)
                await callers.stop(name)
        held = [name for name in callers.served if name not in stopped]
        waits = [name for name in asked if name not in callers.served and name not in stopped]
        assert len(held) <= size
        if len(held) < size:  # a tenant that still waits has its permits already
            share = max(1, size // 4)
            assert all(name[0] != "-" and sum(other[0] == name[0] for other in held) >= share for name in waits), (
                held,
                waits,
            )
        for tenant_of in "abc-":
            order = [name for name in callers.served if name[0] == tenant_of]
            assert order == sorted(order, key=lambda name: int(name[1:]))
    for name in asked:
        if name not in stopped:
            stopped.add(name)
            await callers.stop(name)
    await callers.start(*(f"-{1000 + n}" for n in range(size)))
    assert sum(int(name[1:]) >= 1000 for name in callers.served) == size
