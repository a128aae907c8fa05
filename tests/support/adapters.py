"""Stores and readers that are wrong or poor on purpose, for the checker to find out or to put up with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence

from tools.checker.adapter import Ability, AppendedEvent, OutcomeUnknown, ReadEvent, Write
from tools.checker.eventstore_adapter import EventStoreLog, HorizonReader


class Forgetful(EventStoreLog):
    """Acknowledges everything, and does not store every tenth event; cannot do anything but append."""

    abilities: frozenset[Ability] = frozenset()
    count = 0

    async def append(self, writes: Sequence[Write]) -> Sequence[AppendedEvent]:
        """Leaves some out."""
        (write,) = writes
        type(self).count += 1
        if type(self).count % 10:
            return await super().append(writes)
        return [AppendedEvent(0, 1) for _ in write.events]


class Raising(EventStoreLog):
    """Raises an error of its own kind at the first append, and at every third after it."""

    count = 0

    async def append(self, writes: Sequence[Write]) -> Sequence[AppendedEvent]:
        """Raises at times."""
        type(self).count += 1
        if type(self).count % 3 == 1:
            raise KeyError("not an error that says anything")
        return await super().append(writes)


class Hanging(EventStoreLog):
    """Never returns from the fifth append of a process."""

    count = 0

    async def append(self, writes: Sequence[Write]) -> Sequence[AppendedEvent]:
        """Waits for what does not come."""
        type(self).count += 1
        if type(self).count == 5:
            await asyncio.Event().wait()
        return await super().append(writes)


class Bare:
    """A reader that can only subscribe; it is interrupted, raises and ends, and goes on each time."""

    def __init__(self, url: str, schema: str) -> None:
        self._reader = HorizonReader(url, schema)
        self._count = 0

    async def open(self) -> None:
        """Connects, and makes a remark."""
        print("a remark", file=sys.stderr)
        await self._reader.open()

    async def close(self) -> None:
        """Disconnects."""
        await self._reader.close()

    async def subscribe(self, after: int, tenant: str | None) -> AsyncGenerator[ReadEvent, None]:
        """Interrupts itself in one way or another after fifty events."""
        self._count += 1
        seen = 0
        async for event in self._reader.subscribe(after, tenant):
            yield event
            seen += 1
            if seen == 50:
                if self._count == 1:
                    raise OutcomeUnknown("interrupted")
                if self._count == 2:
                    raise ValueError("boo")
                if self._count == 3:
                    return


class Lazy(HorizonReader):
    """A reader that gives nothing."""

    async def subscribe(self, after: int, tenant: str | None) -> AsyncGenerator[ReadEvent, None]:
        """Yield no events."""
        async for event in super().subscribe(2**62, tenant):
            yield event


class Careless(HorizonReader):
    """A reader with an unhandled error in a callback."""

    async def open(self) -> None:
        """Connects."""
        await super().open()
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)


class Broken(HorizonReader):
    """A reader that cannot even be opened."""

    async def open(self) -> None:
        """Fails."""
        raise RuntimeError("cannot be opened")
