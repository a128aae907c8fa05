"""Appends in transactions of the writer's own: slow, aborted, rolled back to a savepoint, prepared."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from eventstore.check.adapter import Place, Store, Transaction, Write
from eventstore.check.operations import Fate, Operations

_HOLD_SECONDS = 0.08
"""How long a transaction stays open after an append, on average."""
_HOW = "in a transaction"


class Transactions:
    """The transactions of one coroutine of a writer."""

    def __init__(self, chance: random.Random, store: Store, operations: Operations, prepared: str | None) -> None:
        self._chance = chance
        self._store = store
        self._operations = operations
        self._prepared = prepared

    async def run(self, writes: Sequence[Write]) -> None:
        """Appends each in one transaction, and ends it in one way or another."""
        ends = [("commit", 6), ("roll back", 3), ("prepare", 2 if self._prepared else 0)]
        (end,) = self._chance.choices([name for name, _ in ends], [weight for _, weight in ends])
        open_: dict[int, Sequence[Place]] = {}
        asked = False
        try:
            async with self._store.transaction() as transaction:
                for write in writes:
                    await self._append(transaction, write, open_, end)
                if end == "roll back":
                    await transaction.roll_back()
                    self._settle(open_, Fate.ABORTED, "rolled back")
                    return
                asked = True
                if end == "prepare":
                    commit = await self._two_phases(transaction)
                    self._settle(open_, Fate.ACKNOWLEDGED if commit else Fate.ABORTED, "rolled back when prepared")
                    return
                await transaction.commit()
            self._settle(open_, Fate.ACKNOWLEDGED)
        except asyncio.CancelledError:
            self._settle(open_, Fate.UNKNOWN if asked else Fate.ABORTED, "cancelled")
            raise
        except Exception as error:
            # Before its end was asked for, a transaction that breaks cannot have been committed.
            fate = self._operations.judge(error, list(open_))
            lost = fate is Fate.UNKNOWN and asked
            self._settle(open_, Fate.UNKNOWN if lost else Fate.ABORTED, str(error))

    async def _append(
        self, transaction: Transaction, write: Write, open_: dict[int, Sequence[Place]], end: str
    ) -> None:
        if self._chance.random() < 0.25:
            await transaction.savepoint()
            await self._one(transaction, write._replace(events=write.events[:1]), open_, "to be undone")
            await transaction.roll_back_to_savepoint()
            number = next(reversed(open_))
            del open_[number]
            self._operations.settle(number, Fate.ABORTED, "rolled back to a savepoint")
            return
        await self._one(transaction, write, open_, f"to {end}")

    async def _one(
        self, transaction: Transaction, write: Write, open_: dict[int, Sequence[Place]], purpose: str
    ) -> None:
        number = self._operations.announce(f"{_HOW}, {purpose}", [write])
        open_[number] = ()
        open_[number] = await transaction.append(write)
        await asyncio.sleep(self._chance.expovariate(1 / _HOLD_SECONDS))

    async def _two_phases(self, transaction: Transaction) -> bool:
        name = f"{self._prepared}{self._chance.getrandbits(64):x}"
        await transaction.prepare(name)
        await asyncio.sleep(self._chance.expovariate(1 / _HOLD_SECONDS))
        commit = self._chance.random() < 0.7
        await transaction.finish_prepared(name, commit=commit)
        return commit

    def _settle(self, open_: dict[int, Sequence[Place]], fate: Fate, why: str = "") -> None:
        for number, places in open_.items():
            if fate is Fate.ACKNOWLEDGED:
                self._operations.settle(number, fate, places=places)
            else:
                self._operations.settle(number, fate, why)
