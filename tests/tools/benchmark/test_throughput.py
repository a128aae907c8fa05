"""Callers that append for some seconds."""

from __future__ import annotations

import asyncio
import threading

import pytest

from eventstore.errors import InputError, ServerError
from tools.benchmark.measurement import Throughput, drive, drive_threads, driver
from tools.benchmark.messages import Message

LONG = 60.0


async def test_every_caller_does_its_own_items_in_order() -> None:
    done: list[tuple[int, int]] = []

    async def act(caller: int, item: int) -> None:
        await asyncio.sleep(0)
        done.append((caller, item))

    assert await drive([[1, 2, 3], [4, 5, 6]], act, LONG) > 0
    assert [item for caller, item in done if caller == 0] == [1, 2, 3]
    assert {item for caller, item in done if caller == 1} <= {4, 5, 6}


async def test_all_callers_stop_when_one_has_no_item_left() -> None:
    """Fewer callers than requested would measure something else."""
    done: list[int] = []

    async def act(caller: int, _: int) -> None:
        await asyncio.sleep(0)
        done.append(caller)

    await drive([[1], list(range(10_000))], act, LONG)
    assert done.count(1) < 10


async def test_the_error_of_a_caller_is_raised_as_it_is() -> None:
    async def act(_: int, item: int) -> None:
        await asyncio.sleep(0)
        if item == 3:
            raise InputError("three")

    with pytest.raises(InputError, match="three"):
        await drive([[1, 2, 3], list(range(10, 10_000))], act, LONG)


async def test_threads_run_and_stop_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=30)
    done: list[int] = []

    def act(caller: int, item: int) -> None:
        if item == 0:
            together.wait()
        done.append(caller)

    assert await drive_threads([[0], [0, *range(1, 3)]], act, LONG) > 0
    assert 0 in done


async def test_a_side_is_warmed_up_and_then_measured_on_the_messages_of_the_seed() -> None:
    begun: list[int] = []
    texts: list[str] = []

    async def begin(messages: list[Message]) -> None:
        begun.append(len(messages))

    async def append(_: int, text: str) -> None:
        texts.append(text)

    async def stored() -> int:
        return len(texts)

    side = Throughput(1, lambda message: message.text, driver(append), stored, begin)  # type: ignore[arg-type]
    await side.measure("one", 0.001)
    assert len(begun) == 2
    first = len(texts)
    await side.measure("one", 0.001)
    assert len(begun) == 3
    assert len(texts) > first


async def test_the_figure_of_a_side_that_has_not_stored_what_it_appended_is_void() -> None:
    async def append(_: int, text: str) -> None:
        await asyncio.sleep(0)

    async def stored() -> int:
        return 0

    side = Throughput(1, lambda message: message.text, driver(append), stored)
    with pytest.raises(ServerError, match=r"[1-9]\d* messages were appended and 0 are stored: the figure is void"):
        await side.measure("one", 0.001)
