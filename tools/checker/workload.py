"""The workload of writers: a random mixture of everything that an application may do to the log, all journalled."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from itertools import count
from uuid import UUID

from eventstore.events import ANY, EXISTS, NO_STREAM, ExpectedVersion
from tools.checker.adapter import (
    Ability,
    AppendedEvent,
    CheckEvent,
    OutcomeUnknown,
    Refused,
    Store,
    Transaction,
    Write,
    WrongVersion,
    content_of,
)
from tools.checker.journal import Journal

_OWN_CONVERSATIONS = 200
_HOLD_SECONDS = 0.08
"""The time that a transaction stays open after an append, on average."""


class Outcome(StrEnum):
    """The outcome of an append, as far as its writer knows."""

    ACKNOWLEDGED = "acknowledged"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    ABORTED = "aborted"
    """The transaction was rolled back, or failed before its commit was requested."""


class JournalledAppends:
    """The appends of one process, numbered and recorded in its journal before they are tried and afterwards."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self._journal = journal
        self._store = store
        self._numbers = count(1)
        self.tried = 0

    def announce(self, how: str, writes: Sequence[Write], known: Sequence[str] = (), *, sure: bool = False) -> int:
        """Record an append that will be tried, and return its number.

        Args:
            sure: whether the expected versions are right, whatever other writers do.
            known: ids among the writes' that another append has already stored.
        """
        number = next(self._numbers)
        described = [
            [w.tenant, w.conversation.hex, w.expected, [e.id.hex for e in w.events if e.id.hex not in known]]
            for w in writes
        ]
        self._journal.write(k="try", op=number, how=how, sure=sure, writes=described)
        self.tried += 1
        return number

    def announce_repeat(self, number: int) -> None:
        """Record that an append will be repeated."""
        self._journal.write(k="again", op=number)

    def settle(self, number: int, outcome: Outcome, reason: str = "", appended: Sequence[AppendedEvent] = ()) -> None:
        """Record the outcome of an append."""
        details = {"places": [list(event) for event in appended]} if appended else {"why": reason[:500]}
        self._journal.write(k=outcome.value, op=number, **details)

    async def append(self, number: int, writes: Sequence[Write]) -> tuple[Outcome, Sequence[AppendedEvent]]:
        """Append what was announced, and record and return the outcome."""
        try:
            appended = await self._store.append(writes)
        except asyncio.CancelledError:
            self.settle(number, Outcome.UNKNOWN, "cancelled")
            raise
        except Exception as error:
            if isinstance(error, WrongVersion):
                self._journal.write(k="wrong", op=number)
            outcome = self.outcome_of(error, (number,))
            self.settle(number, outcome, str(error))
            return outcome, ()
        self.settle(number, Outcome.ACKNOWLEDGED, appended=appended)
        return Outcome.ACKNOWLEDGED, appended

    def outcome_of(self, error: Exception, numbers: Sequence[int]) -> Outcome:
        """Return the outcome that an error means; an error that the store should not have raised is recorded."""
        if isinstance(error, Refused):
            return Outcome.REFUSED
        if not isinstance(error, OutcomeUnknown):
            for number in numbers:
                self._journal.write(k="error", op=number, why=f"{type(error).__name__}: {error}"[:2000])
        return Outcome.UNKNOWN


class Workload:
    """A coroutine of a writer."""

    def __init__(
        self,
        rng: random.Random,
        store: Store,
        appends: JournalledAppends,
        tenants: Sequence[str],
        hot: Sequence[UUID],
        prepared: str | None,
    ) -> None:
        """Prepare the workload.

        Args:
            hot: conversations that all writers share.
            prepared: prefix of the names of prepared transactions; None if the server allows none.
        """
        self._rng = rng
        self._appends = appends
        self._tenants = tenants
        self._hot = hot
        self._own: deque[tuple[str, UUID, int, UUID]] = deque(maxlen=_OWN_CONVERSATIONS)
        self._transactions = TransactionWorkload(rng, store, appends, prepared)
        abilities = store.abilities
        # With their weights; what the store cannot do is left out.
        self._actions = [
            (20, self._new, True),
            (25, self._hot_conversation, True),
            (15, self._own_conversation, True),
            (5, self._wrong_version, Ability.EXPECTED in abilities),
            (10, self._several, Ability.SEVERAL in abilities),
            (2, self._id_conflict, Ability.REPEAT in abilities),
            (1, self._invalid, Ability.INVALID in abilities),
            (4, self._cancelled, True),
            (14, self._in_transaction, Ability.TRANSACTION in abilities),
        ]
        self._repeats = Ability.REPEAT in abilities
        self._expects = Ability.EXPECTED in abilities

    async def run(self, stop: asyncio.Event) -> None:
        """Append until the event is set."""
        weights = [weight if able else 0 for weight, _, able in self._actions]
        while not stop.is_set():
            (_, act, _) = self._rng.choices(self._actions, weights)[0]
            await act()
            await asyncio.sleep(self._rng.expovariate(100))

    async def _new(self) -> None:
        await self._append("to a new conversation", [self._write(self._random_id(), NO_STREAM)], sure=True)

    async def _hot_conversation(self) -> None:
        expected: ExpectedVersion = self._rng.choice((ANY, ANY, ANY, EXISTS))
        await self._append("to a hot conversation", [self._write(self._rng.choice(self._hot), expected)])

    async def _own_conversation(self) -> None:
        """Append to a conversation that no other writer writes to, so the expected version is right."""
        if self._own:
            tenant, conversation, version, _ = self._own.popleft()
            await self._append("as expected", [self._write(conversation, version, tenant)], sure=True)

    async def _wrong_version(self) -> None:
        if self._own:
            tenant, conversation, version, _ = self._rng.choice(self._own)
            wrong = self._rng.choice((NO_STREAM, version + 1, version - 1, 0))
            await self._append("with a wrong version", [self._write(conversation, wrong, tenant)], remember=False)
        await self._append("to one that must exist", [self._write(self._random_id(), EXISTS)], remember=False)

    async def _several(self) -> None:
        tenant = self._rng.choice(self._tenants)
        hot = self._rng.sample(list(self._hot), min(len(self._hot), self._rng.randint(0, 3)))
        new = [self._random_id() for _ in range(self._rng.randint(1, 3))]
        writes = [self._write(conversation, ANY, tenant) for conversation in hot]
        writes += [self._write(conversation, NO_STREAM, tenant) for conversation in new]
        self._rng.shuffle(writes)
        await self._append("to several conversations", writes, sure=True)

    async def _id_conflict(self) -> None:
        """Append a new event together with another event under a stored id: neither may be stored."""
        if self._own:
            tenant, conversation, _, taken = self._rng.choice(self._own)
            write = self._write(conversation, ANY, tenant)
            write = write._replace(events=(*write.events, CheckEvent(taken, {"another": "event"})))
            number = self._appends.announce("beside a taken id", [write], known=[taken.hex])
            await self._appends.append(number, [write])

    async def _invalid(self) -> None:
        write = self._write(self._random_id(), ANY)
        write = write._replace(events=(*write.events, CheckEvent(self._random_id(), {"text": "a NUL: \0"})))
        number = self._appends.announce("beside what cannot be stored", [write])
        await self._appends.append(number, [write])

    async def _cancelled(self) -> None:
        """Cancel an append in flight, and then repeat it or not."""
        writes = [self._write(self._rng.choice((self._rng.choice(self._hot), self._random_id())), ANY)]
        number = self._appends.announce("cancelled in flight", writes)
        task = asyncio.create_task(self._appends.append(number, writes))
        await asyncio.wait([task], timeout=self._rng.expovariate(500))
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled() and self._repeats and self._rng.random() < 0.7:
            await self._repeat(number, writes)

    async def _in_transaction(self) -> None:
        hot = self._rng.random() < 0.3
        writes = [
            self._write(self._rng.choice(self._hot) if hot else self._random_id(), ANY)
            for _ in range(self._rng.randint(1, 3))
        ]
        await self._transactions.run(writes)

    async def _append(self, how: str, writes: list[Write], *, sure: bool = False, remember: bool = True) -> None:
        number = self._appends.announce(how, writes, sure=sure)
        outcome, appended = await self._appends.append(number, writes)
        if outcome is Outcome.UNKNOWN and self._repeats and self._rng.random() < 0.8:
            outcome, appended = await self._repeat(number, writes)
        if outcome is Outcome.ACKNOWLEDGED and remember:
            self._remember(writes, appended)

    async def _repeat(self, number: int, writes: list[Write]) -> tuple[Outcome, Sequence[AppendedEvent]]:
        """Repeat an append under the same ids until the outcome is known, or a limit is reached."""
        outcome: Outcome = Outcome.UNKNOWN
        appended: Sequence[AppendedEvent] = ()
        for _ in range(self._rng.randint(1, 10)):
            await asyncio.sleep(self._rng.expovariate(10))
            self._appends.announce_repeat(number)
            outcome, appended = await self._appends.append(number, writes)
            if outcome is not Outcome.UNKNOWN:
                break
        return outcome, appended

    def _remember(self, writes: list[Write], appended: Sequence[AppendedEvent]) -> None:
        done = 0
        for write in writes:
            done += len(write.events)
            if write.conversation not in self._hot:
                version = appended[done - 1].version
                self._own.append((write.tenant, write.conversation, version, write.events[-1].id))

    def _write(self, conversation: UUID, expected: ExpectedVersion, tenant: str | None = None) -> Write:
        ids = [self._random_id() for _ in range(self._size())]
        return Write(
            tenant or self._rng.choice(self._tenants),
            conversation,
            tuple(CheckEvent(event_id, content_of(event_id)) for event_id in ids),
            expected if self._expects else ANY,
        )

    def _size(self) -> int:
        """Return a number of events: mostly one, sometimes a few, rarely hundreds."""
        (most,) = self._rng.choices((1, 20, 300), (80, 19, 1))
        return self._rng.randint(1, most)

    def _random_id(self) -> UUID:
        return UUID(int=self._rng.getrandbits(128), version=4)


class TransactionWorkload:
    """Appends in the writer's own transactions: slow, aborted, rolled back to a savepoint, prepared."""

    def __init__(self, rng: random.Random, store: Store, appends: JournalledAppends, prepared: str | None) -> None:
        self._rng = rng
        self._store = store
        self._appends = appends
        self._prepared = prepared

    async def run(self, writes: Sequence[Write]) -> None:
        """Append all writes in one transaction, and end it in a random way."""
        ends = [("commit", 6), ("roll back", 3), ("prepare", 2 if self._prepared else 0)]
        (end,) = self._rng.choices([name for name, _ in ends], [weight for _, weight in ends])
        open_: dict[int, Sequence[AppendedEvent]] = {}
        end_requested = False
        try:
            async with self._store.transaction() as transaction:
                for write in writes:
                    await self._append(transaction, write, open_, end)
                if end == "roll back":
                    await transaction.roll_back()
                    self._settle(open_, Outcome.ABORTED, "rolled back")
                    return
                end_requested = True
                if end == "prepare":
                    commit = await self._two_phases(transaction)
                    outcome = Outcome.ACKNOWLEDGED if commit else Outcome.ABORTED
                    self._settle(open_, outcome, "rolled back when prepared")
                    return
                await transaction.commit()
            self._settle(open_, Outcome.ACKNOWLEDGED)
        except asyncio.CancelledError:
            self._settle(open_, Outcome.UNKNOWN if end_requested else Outcome.ABORTED, "cancelled")
            raise
        except Exception as error:
            # A transaction that fails before its end was requested cannot have been committed.
            is_unknown = self._appends.outcome_of(error, list(open_)) is Outcome.UNKNOWN and end_requested
            self._settle(open_, Outcome.UNKNOWN if is_unknown else Outcome.ABORTED, str(error))

    async def _append(
        self, transaction: Transaction, write: Write, open_: dict[int, Sequence[AppendedEvent]], end: str
    ) -> None:
        if self._rng.random() < 0.25:
            await transaction.savepoint()
            await self._append_one(transaction, write._replace(events=write.events[:1]), open_, "to be undone")
            await transaction.roll_back_to_savepoint()
            number = next(reversed(open_))
            del open_[number]
            self._appends.settle(number, Outcome.ABORTED, "rolled back to a savepoint")
        else:
            await self._append_one(transaction, write, open_, f"to {end}")

    async def _append_one(
        self, transaction: Transaction, write: Write, open_: dict[int, Sequence[AppendedEvent]], purpose: str
    ) -> None:
        number = self._appends.announce(f"in a transaction, {purpose}", [write])
        open_[number] = ()
        open_[number] = await transaction.append(write)
        await self._hold()

    async def _two_phases(self, transaction: Transaction) -> bool:
        name = f"{self._prepared}{self._rng.getrandbits(64):x}"
        await transaction.prepare(name)
        await self._hold()
        commit = self._rng.random() < 0.7
        await transaction.finish_prepared(name, commit=commit)
        return commit

    async def _hold(self) -> None:
        await asyncio.sleep(self._rng.expovariate(1 / _HOLD_SECONDS))

    def _settle(self, open_: dict[int, Sequence[AppendedEvent]], outcome: Outcome, reason: str = "") -> None:
        for number, appended in open_.items():
            if outcome is Outcome.ACKNOWLEDGED:
                self._appends.settle(number, outcome, appended=appended)
            else:
                self._appends.settle(number, outcome, reason)
