"""What writers do: a random mixture of everything that an application may do to the log."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from uuid import UUID

from eventstore.check.adapter import Ability, Given, Place, Store, Write, content_of
from eventstore.check.operations import Fate, Operations
from eventstore.check.transactions import Transactions
from eventstore.events import ANY, EXISTS, NO_STREAM, ExpectedVersion

_REMEMBERED = 200


class Workload:
    """One coroutine of a writer."""

    def __init__(
        self,
        chance: random.Random,
        store: Store,
        operations: Operations,
        tenants: Sequence[str],
        hot: Sequence[UUID],
        prepared: str | None,
    ) -> None:
        """Tells nothing yet.

        Args:
            prepared: what the names of prepared transactions begin with; None where the server allows none.
        """
        self._chance = chance
        self._operations = operations
        self._tenants = tenants
        self._hot = hot
        self._mine: deque[tuple[str, UUID, int, UUID]] = deque(maxlen=_REMEMBERED)
        self._transactions = Transactions(chance, store, operations, prepared)
        able = store.abilities
        # By weight; what the store cannot do is left out.
        self._ways = [
            (20, self._new, True),
            (25, self._hot_one, True),
            (15, self._go_on, True),
            (5, self._wrong_version, Ability.EXPECTED in able),
            (10, self._several, Ability.SEVERAL in able),
            (2, self._clash, Ability.REPEAT in able),
            (1, self._invalid, Ability.INVALID in able),
            (4, self._cancelled, True),
            (14, self._in_a_transaction, Ability.TRANSACTION in able),
        ]
        self._repeats = Ability.REPEAT in able
        self._expects = Ability.EXPECTED in able

    async def run(self, stop: asyncio.Event) -> None:
        """Appends until told to stop."""
        weights = [weight if able else 0 for weight, _, able in self._ways]
        while not stop.is_set():
            (_, way, _) = self._chance.choices(self._ways, weights)[0]
            await way()
            await asyncio.sleep(self._chance.expovariate(100))

    async def _new(self) -> None:
        await self._tell("to a new conversation", [self._write(self._conversation(), NO_STREAM)], sure=True)

    async def _hot_one(self) -> None:
        expected: ExpectedVersion = self._chance.choice((ANY, ANY, ANY, EXISTS))
        await self._tell("to a hot conversation", [self._write(self._chance.choice(self._hot), expected)])

    async def _go_on(self) -> None:
        """To a conversation that nobody else writes to, so that the version expected is right."""
        if self._mine:
            tenant, conversation, version, _ = self._mine.popleft()
            await self._tell("as expected", [self._write(conversation, version, tenant)], sure=True)

    async def _wrong_version(self) -> None:
        if self._mine:
            tenant, conversation, version, _ = self._chance.choice(self._mine)
            wrong = self._chance.choice((NO_STREAM, version + 1, version - 1, 0))
            await self._tell("with a wrong version", [self._write(conversation, wrong, tenant)], remember=False)
        await self._tell("to one that must exist", [self._write(self._conversation(), EXISTS)], remember=False)

    async def _several(self) -> None:
        tenant = self._chance.choice(self._tenants)
        hot = self._chance.sample(list(self._hot), min(len(self._hot), self._chance.randint(0, 3)))
        new = [self._conversation() for _ in range(self._chance.randint(1, 3))]
        writes = [self._write(conversation, ANY, tenant) for conversation in hot]
        writes += [self._write(conversation, NO_STREAM, tenant) for conversation in new]
        self._chance.shuffle(writes)
        await self._tell("to several conversations", writes, sure=True)

    async def _clash(self) -> None:
        """A new event beside another event under an id that is taken: neither may be stored."""
        if self._mine:
            tenant, conversation, _, taken = self._chance.choice(self._mine)
            write = self._write(conversation, ANY, tenant)
            write = write._replace(events=(*write.events, Given(taken, {"another": "event"})))
            number = self._operations.announce("beside a taken id", [write], known=[taken.hex])
            await self._operations.append(number, [write])

    async def _invalid(self) -> None:
        write = self._write(self._conversation(), ANY)
        bad = Given(self._conversation(), {"text": "a NUL: \0"})
        write = write._replace(events=(*write.events, bad))
        number = self._operations.announce("beside what cannot be stored", [write])
        await self._operations.append(number, [write])

    async def _cancelled(self) -> None:
        """Given up while it is under way, and then repeated or not."""
        writes = [self._write(self._chance.choice((self._chance.choice(self._hot), self._conversation())), ANY)]
        number = self._operations.announce("given up on the way", writes)
        task = asyncio.create_task(self._operations.append(number, writes))
        await asyncio.wait([task], timeout=self._chance.expovariate(500))
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled() and self._repeats and self._chance.random() < 0.7:
            await self._repeat(number, writes)

    async def _in_a_transaction(self) -> None:
        hot = self._chance.random() < 0.3
        writes = [
            self._write(self._chance.choice(self._hot) if hot else self._conversation(), ANY)
            for _ in range(self._chance.randint(1, 3))
        ]
        await self._transactions.run(writes)

    async def _tell(self, how: str, writes: list[Write], *, sure: bool = False, remember: bool = True) -> None:
        number = self._operations.announce(how, writes, sure=sure)
        fate, places = await self._operations.append(number, writes)
        if fate is Fate.UNKNOWN and self._repeats and self._chance.random() < 0.8:
            fate, places = await self._repeat(number, writes)
        if fate is Fate.ACKNOWLEDGED and remember:
            self._remember(writes, places)

    async def _repeat(self, number: int, writes: list[Write]) -> tuple[Fate, Sequence[Place]]:
        """Under the same ids, until the outcome is known or patience ends."""
        fate: Fate = Fate.UNKNOWN
        places: Sequence[Place] = ()
        for _ in range(self._chance.randint(1, 10)):
            await asyncio.sleep(self._chance.expovariate(10))
            self._operations.again(number)
            fate, places = await self._operations.append(number, writes)
            if fate is not Fate.UNKNOWN:
                break
        return fate, places

    def _remember(self, writes: list[Write], places: Sequence[Place]) -> None:
        done = 0
        for write in writes:
            done += len(write.events)
            if write.conversation not in self._hot:
                mine = (write.tenant, write.conversation, places[done - 1].version, write.events[-1].id)
                self._mine.append(mine)

    def _write(self, conversation: UUID, expected: ExpectedVersion, tenant: str | None = None) -> Write:
        ids = [self._conversation() for _ in range(self._size())]
        return Write(
            tenant or self._chance.choice(self._tenants),
            conversation,
            tuple(Given(event_id, content_of(event_id)) for event_id in ids),
            expected if self._expects else ANY,
        )

    def _size(self) -> int:
        """How many events: mostly one, sometimes a few, seldom hundreds."""
        (most,) = self._chance.choices((1, 20, 300), (80, 19, 1))
        return self._chance.randint(1, most)

    def _conversation(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)
