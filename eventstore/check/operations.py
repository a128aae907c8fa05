"""One append after another, each told to the journal before it is tried and after its outcome is known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from itertools import count

from eventstore.check.adapter import Place, Refused, Store, Unknown, Write, WrongVersion
from eventstore.check.journal import Journal


class Fate(StrEnum):
    """What became of an append, as far as its writer knows."""

    ACKNOWLEDGED = "acknowledged"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    ABORTED = "aborted"
    """Its transaction was rolled back, or broke before its commit was asked for."""


class Operations:
    """The appends of one process, numbered."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self._journal = journal
        self._store = store
        self._numbers = count(1)
        self.tried = 0

    def announce(self, how: str, writes: Sequence[Write], known: Sequence[str] = (), *, sure: bool = False) -> int:
        """Tells what will be tried.

        Args:
            sure: the versions expected are right, whatever anybody else does.
            known: ids among those of the writes that are in the log already, from another append.

        Returns:
            The append's number.
        """
        number = next(self._numbers)
        described = [
            [w.tenant, w.conversation.hex, w.expected, [e.id.hex for e in w.events if e.id.hex not in known]]
            for w in writes
        ]
        self._journal.note(k="try", op=number, how=how, sure=sure, writes=described)
        self.tried += 1
        return number

    def again(self, number: int) -> None:
        """Tells that an append will be repeated."""
        self._journal.note(k="again", op=number)

    def settle(self, number: int, fate: Fate, why: str = "", places: Sequence[Place] = ()) -> None:
        """Tells the outcome."""
        told = {"places": [list(place) for place in places]} if places else {"why": why[:500]}
        self._journal.note(k=fate.value, op=number, **told)

    def report_error(self, number: int, error: BaseException) -> None:
        """Tells an error that is neither a refusal nor a lost connection; the store should not have raised it."""
        self._journal.note(k="error", op=number, why=f"{type(error).__name__}: {error}"[:2000])

    async def append(self, number: int, writes: Sequence[Write]) -> tuple[Fate, Sequence[Place]]:
        """Appends what was announced, and tells the outcome."""
        places: Sequence[Place] = ()
        try:
            places = await self._store.append(writes)
        except asyncio.CancelledError:
            self.settle(number, Fate.UNKNOWN, "cancelled")
            raise
        except Exception as error:
            if isinstance(error, WrongVersion):
                self._journal.note(k="wrong", op=number)
            fate = self.judge(error, (number,))
            self.settle(number, fate, str(error))
        else:
            fate = Fate.ACKNOWLEDGED
            self.settle(number, fate, places=places)
        return fate, places

    def judge(self, error: Exception, numbers: Sequence[int]) -> Fate:
        """The fate that an error means; one that means none is reported."""
        if isinstance(error, Refused):
            return Fate.REFUSED
        if not isinstance(error, Unknown):
            for number in numbers:
                self.report_error(number, error)
        return Fate.UNKNOWN
