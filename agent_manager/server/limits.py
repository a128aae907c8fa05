"""Rate and concurrency limits for each tenant and caller.

A tenant has a share of the server, and each of its callers (a key, or the user of a JWT) a share of the tenant's: more
keys give a tenant nothing. Until a caller has shown a token, the address counts from which the request comes.

Callers who need no token are this machine's own and are not told apart: for them only the server's own limits count.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from cachetools import LRUCache

from agent_manager.server.problems import Busy, TooMany
from agent_manager.settings import ServerSettings

# Numbers of what happened, by name and labels, for whatever reads them out

Labels: TypeAlias = tuple[tuple[str, str], ...]


class Counters:
    """Numbers that only grow, of one server.

    A label is one of few words that are written in the code; nothing that a client sends becomes one, so that nobody
    can make them grow in number.
    """

    def __init__(self) -> None:
        self._numbers: Counter[tuple[str, Labels]] = Counter()

    def add(self, name: str, **labels: str) -> None:
        """One more."""
        self._numbers[name, tuple(sorted(labels.items()))] += 1

    def number(self, name: str, **labels: str) -> int:
        """How many of this name with these labels, whatever other labels they have."""
        wanted = set(labels.items())
        return sum(number for (each, told), number in self._numbers.items() if each == name and wanted <= set(told))

    def __iter__(self) -> Iterator[tuple[str, dict[str, str], int]]:
        """Each name with its labels and its number."""
        return iter([(name, dict(labels), number) for (name, labels), number in self._numbers.items()])


# What a tenant, a caller of it, and all together may have: requests, events and bytes a second; requests and streams

KEYS = 100_000
"""The rates of so many are remembered; one that is forgotten begins anew."""
BURST_SECONDS = 2
"""After a pause, the amount of so many seconds may come at once."""
TENANT_SHARE = 2
"""A tenant has at most this fraction of the server's places: another tenant always finds some."""
CALLER_SHARE = 2
"""A caller has at most this fraction of its tenant's share."""
REFUSALS_PER_SECOND, REFUSAL_SECONDS = 50, 5.0
"""Refusals of a tenant or an address are answered so many a second, and none later than after so many seconds."""
TENANT_RATE = 4
"""A tenant may send as many requests as so many of its callers."""


class TokenBucket:
    """A token bucket for each key.

    What is spent may exceed what is left: then the key waits until the debt is paid.

    Args:
        per_second: the rate of one key.
        what: the unit and the kind of key, for the error.
        setting: the name of the setting that limits it.
        clock: seconds, which only grow.
    """

    def __init__(
        self,
        per_second: float,
        what: str = "requests of one key",
        setting: str = "EVENTSTORE_RATE_PER_SECOND",
        clock: Callable[[], float] = time.monotonic,
        keys: int = KEYS,
        least: float = 1.0,
    ) -> None:
        self._per_second = per_second
        self._most = max(least, BURST_SECONDS * per_second)
        self._what = what
        self._setting = setting
        self._clock = clock
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(keys)

    def take(self, key: str, amount: float = 1) -> None:
        """Spend an amount if there is anything left.

        Raises:
            TooMany: there is not; says when there will be.
        """
        self.check(key)
        self.spend(key, amount)

    def check(self, key: str) -> None:
        """Check that something is left.

        Raises:
            TooMany: there is not; says when there will be.
        """
        left = self._now_left(key)
        if left < 1:
            raise TooMany(
                f"more than {self._per_second:g} {self._what} a second: wait, or raise {self._setting}",
                "rate",
                max(1, math.ceil((1 - left) / self._per_second)),
            )

    def spend(self, key: str, amount: float) -> None:
        """Spend an amount, whatever is left."""
        self._left[key] = self._now_left(key) - amount, self._clock()

    def _now_left(self, key: str) -> float:
        now = self._clock()
        left, at = self._left.get(key, (self._most, now))
        return min(self._most, left + (now - at) * self._per_second)


class SharedTokenBuckets:
    """The rates of tenants and of their callers.

    Args:
        of_caller, of_tenant: see :class:`TokenBucket`.
    """

    def __init__(self, of_caller: TokenBucket, of_tenant: TokenBucket) -> None:
        self._levels = (of_tenant, of_caller)

    def take(self, shares: Sequence[str], amount: float = 1) -> None:
        """Spend an amount of a tenant and its caller, as :func:`~agent_manager.server.authorization.limit_keys_of`
        names them.

        Raises:
            TooMany: one of them has nothing left.
        """
        self.check(shares)
        self.spend(shares, amount)

    def check(self, shares: Sequence[str]) -> None:
        """Check that both have something left. Raises TooMany."""
        for level, rates in enumerate(self._levels[: len(shares)]):
            rates.check("\0".join(shares[: level + 1]))

    def spend(self, shares: Sequence[str], amount: float) -> None:
        """Spend an amount, whatever is left."""
        for level, rates in enumerate(self._levels[: len(shares)]):
            rates.spend("\0".join(shares[: level + 1]), amount)


class Refusals:
    """The pace at which refusals are answered.

    A refusal costs the server almost as much as a small answer, and nothing limits how often somebody repeats what is
    refused. So the refusals of each tenant, or of an address that has not shown a valid token, are answered one after
    another at a bounded rate. The first is answered at once; a client that waits as it is told never notices.

    Args:
        per_second: refusals of one key.
        longest: seconds that one waits at most.
    """

    def __init__(self, per_second: float, longest: float, keys: int = KEYS) -> None:
        self._seconds = 1 / per_second
        self._longest = longest
        self._next: LRUCache[str, float] = LRUCache(keys)

    def delay(self, key: str, now: float) -> float:
        """Return the seconds after which a refusal is to be answered.

        Args:
            now: by a clock that only grows.
        """
        at = min(max(now, self._next.get(key, now)), now + self._longest)
        self._next[key] = at + self._seconds
        return at - now


class ConcurrencyLimit:
    """Things at a time, of which each key may have a part.

    Args:
        what: they are, in the plural.
        most: of all keys together.
        parts: how many one key may have, for each key that is given: first the tenant's, then the caller's.
        setting: that says how many.
    """

    def __init__(self, what: str, most: int, parts: Sequence[int], setting: str) -> None:
        self._what = what
        self._most = most
        self._parts = tuple(parts)
        self._setting = setting
        self._taken: Counter[tuple[str, ...]] = Counter()
        self._all = 0

    @property
    def taken(self) -> int:
        """How many there are now."""
        return self._all

    @contextmanager
    def one(self, *keys: str) -> Iterator[None]:
        """Take a place until the end of the block.

        Raises:
            TooMany: one of the keys has its part already.
            Busy: there is none.
        """
        holders = [keys[: level + 1] for level in range(len(keys))]
        for holder, part in zip(holders, self._parts, strict=False):
            if self._taken[holder] >= part:
                raise TooMany(
                    f"you have {part} {self._what} already: end one first, or raise {self._setting}", self._what
                )
        if self._all >= self._most:
            raise Busy(
                f"the server has {self._most} {self._what} already: come again, or raise {self._setting}", self._what
            )
        self._all += 1
        self._taken.update(holders)
        try:
            yield
        finally:
            self._all -= 1
            self._taken.subtract(holders)
            for holder in holders:
                if not self._taken[holder]:
                    del self._taken[holder]


# The event loop's time: whatever takes long is done in slices, one slice at a time

SLICE_SECONDS = 0.001
"""Work for one answer or stream before the event loop goes on with everything else."""


class WorkTurns:
    """Turns to do a slice of work in the event loop.

    A request awaits some ten steps of the event loop, and each step waits for everything else that is ready. So at most
    one slice is done in each iteration of the loop: the tenants take turns, and the slices of one tenant are done in
    order of arrival. However many large answers and streams a tenant has, a step of another tenant's request waits for
    about one slice.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """The tenant whose turn is next comes first; none has an empty queue."""
        self._is_scheduled = False

    async def wait(self, tenant: str) -> None:
        """Wait for a turn of a tenant."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._next, loop)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        has_begun = False
        while self._waiting and not has_begun:
            tenant, queue = next(iter(self._waiting.items()))
            turn = queue.popleft()
            if queue:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            if not turn.done():  # else the request was cancelled
                turn.set_result(None)
                has_begun = True
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            loop.call_soon(self._next, loop)


class TimeSlice:
    """The slices of one answer or stream.

    Args:
        tenant: whose work it is.
    """

    def __init__(self, turns: WorkTurns, tenant: str) -> None:
        self._turns = turns
        self._tenant = tenant
        self._began = time.perf_counter()

    async def give_way(self) -> None:
        """Wait for the next turn if the slice is over, or something else was awaited meanwhile for as long."""
        if time.perf_counter() - self._began > SLICE_SECONDS:
            await self._turns.wait(self._tenant)
            self._began = time.perf_counter()


# Memory that request bodies take

BODY_BYTES = 64 * 1024 * 1024
"""Of all request bodies that are read or worked on, unless a few of the largest that is allowed take more."""


def largest_body(settings: ServerSettings) -> int:
    """Return the bytes that the body of one request may take."""
    return 2 * settings.max_content_bytes + 65536


class BodyBudget:
    """Bytes of request bodies in memory, of which each tenant may have a part.

    A body counts from when its bytes are read until the end of its request.

    Args:
        most: bytes of all tenants.

    Attributes:
        taken: bytes now.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_tenant = most // TENANT_SHARE
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._taken.total()

    @contextmanager
    def request(self, tenant: str) -> Iterator[Callable[[int], None]]:
        """Provide a function that counts bytes of a request's body until the end of the block.

        The function raises TooMany if the tenant has its part already, and Busy if all tenants together have all.
        """
        held = 0

        def count(size: int) -> None:
            nonlocal held
            if self._taken[tenant] + size > self._of_tenant:
                raise TooMany(
                    f"the bodies of your requests under way take {self._of_tenant:,} bytes already: send fewer or "
                    "smaller requests at a time",
                    "body bytes",
                )
            if self.taken + size > self._most:
                raise Busy(f"request bodies take {self._most:,} bytes already: come again", "body bytes")
            self._taken[tenant] += size
            held += size

        try:
            yield count
        finally:
            self._taken[tenant] -= held
            if not self._taken[tenant]:
                del self._taken[tenant]


def _parts(most: int) -> tuple[int, int]:
    of_tenant = max(1, most // TENANT_SHARE)
    return of_tenant, max(1, of_tenant // CALLER_SHARE)


class Limits:
    """All limits of one server.

    Attributes:
        rates: requests a second.
        events: appended a second.
        bytes: of requests' bodies, a second.
        identifying: requests whose token is being looked up, by address.
        requests: that are under way.
        streams: endless answers.
        turns: to do slices of work in the event loop.
        bodies: bytes of request bodies in memory.
        refusals: the pace at which they are answered.
    """

    def __init__(self, settings: ServerSettings) -> None:
        most, streams = settings.max_requests, settings.max_streams
        rate = settings.rate_per_second
        self.rates = SharedTokenBuckets(
            TokenBucket(rate),
            TokenBucket(TENANT_RATE * rate, "requests of one tenant", least=TENANT_RATE),
        )
        self.events = _shared("events", settings.events_per_second, "EVENTSTORE_EVENTS_PER_SECOND")
        self.bytes = _shared("bytes", settings.bytes_per_second, "EVENTSTORE_BYTES_PER_SECOND")
        self.identifying = ConcurrencyLimit(
            "requests from your address that have shown no valid token yet", most, [max(1, most // TENANT_SHARE)],
            "EVENTSTORE_MAX_REQUESTS",
        )  # fmt: skip
        self.requests = ConcurrencyLimit("requests under way", most, _parts(most), "EVENTSTORE_MAX_REQUESTS")
        self.refusals = Refusals(REFUSALS_PER_SECOND, REFUSAL_SECONDS)
        self.streams = ConcurrencyLimit("open streams", streams, _parts(streams), "EVENTSTORE_MAX_STREAMS")
        self.turns = WorkTurns()
        self.bodies = BodyBudget(max(BODY_BYTES, 2 * TENANT_SHARE * largest_body(settings)))


def _shared(what: str, of_tenant: float, setting: str) -> SharedTokenBuckets:
    return SharedTokenBuckets(
        TokenBucket(of_tenant / CALLER_SHARE, f"{what} of one key", setting),
        TokenBucket(of_tenant, f"{what} of one tenant", setting),
    )
