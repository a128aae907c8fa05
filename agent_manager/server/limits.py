"""Limits for each tenant and caller: rates, concurrency, memory of request bodies, and time of the event loop.

A tenant has a share of the server, and each of its callers (a key, or the user of a JWT) has a share of the tenant's,
so a tenant gains nothing from more keys. Until the token of a request is validated, the request counts against the
network that it comes from.

Requests that need no token come from this machine, and their callers cannot be distinguished. Only the limits of the
whole server apply to them.
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

# Counters

Labels: TypeAlias = tuple[tuple[str, str], ...]


class Counters:
    """The counters of one server, by name and labels. They only increase.

    The values of labels are constants in the code, never input of a client. Otherwise clients could create any number
    of counters.
    """

    def __init__(self) -> None:
        self._numbers: Counter[tuple[str, Labels]] = Counter()

    def add(self, name: str, **labels: str) -> None:
        """Increment a counter by one."""
        self._numbers[name, tuple(sorted(labels.items()))] += 1

    def number(self, name: str, **labels: str) -> int:
        """Return the sum of the counters that have this name and these labels; they may have further labels."""
        wanted = set(labels.items())
        return sum(number for (each, told), number in self._numbers.items() if each == name and wanted <= set(told))

    def __iter__(self) -> Iterator[tuple[str, dict[str, str], int]]:
        """Iterate over the counters: name, labels and value."""
        return iter([(name, dict(labels), number) for (name, labels), number in self._numbers.items()])


# Rates, rejections and concurrency

KEYS = 100_000
"""Keys whose state is kept; the least recently used one is dropped first, and starts anew when it returns."""
BURST_SECONDS = 2
"""Seconds whose amount may arrive at once after a pause."""
TENANT_SHARE = 2
"""The divisor of a tenant's share: at most 1/2 of the server's limit, so one tenant never uses up all of it."""
CALLER_SHARE = 2
"""The divisor of a caller's share: at most 1/2 of its tenant's."""
REFUSALS_PER_SECOND, REFUSAL_SECONDS = 50, 5.0
"""Rejections per second that are sent to one tenant or network, and the longest delay of one in seconds."""
TENANT_RATE = 4
"""The rate of requests of a tenant, as a multiple of the rate of one caller."""


class TokenBucket:
    """A token bucket for each key.

    An amount may exceed what the bucket holds. Further requests of the key are then rejected until the bucket has been
    refilled.

    Args:
        per_second: The rate of one key.
        what: The unit and the kind of key, for the error message.
        setting: The name of the setting that holds the rate.
        clock: Returns seconds and never goes back.
        keys: Buckets that are kept; the least recently used one is dropped first.
        least: The smallest capacity of a bucket.
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
        """Take an amount if the bucket of the key is not empty.

        Raises:
            TooMany: The bucket is empty; ``Retry-After`` says when to retry.
        """
        self.check(key)
        self.spend(key, amount)

    def check(self, key: str) -> None:
        """Check that the bucket of the key is not empty.

        Raises:
            TooMany: The bucket is empty; ``Retry-After`` says when to retry.
        """
        left = self._now_left(key)
        if left < 1:
            raise TooMany(
                f"more than {self._per_second:g} {self._what} per second: retry later, or raise {self._setting}",
                "rate",
                max(1, math.ceil((1 - left) / self._per_second)),
            )

    def spend(self, key: str, amount: float) -> None:
        """Take an amount, even if the bucket of the key does not hold it."""
        self._left[key] = self._now_left(key) - amount, self._clock()

    def _now_left(self, key: str) -> float:
        now = self._clock()
        left, at = self._left.get(key, (self._most, now))
        return min(self._most, left + (now - at) * self._per_second)


class SharedTokenBuckets:
    """Token buckets on two levels: one for each tenant, and one for each caller of a tenant.

    Args:
        of_caller: The buckets of callers.
        of_tenant: The buckets of tenants.
    """

    def __init__(self, of_caller: TokenBucket, of_tenant: TokenBucket) -> None:
        self._levels = (of_tenant, of_caller)

    def take(self, shares: Sequence[str], amount: float = 1) -> None:
        """Take an amount from the buckets of a tenant and its caller if neither is empty.

        Args:
            shares: The keys of the buckets (:func:`~agent_manager.server.authorization.limit_keys_of`).

        Raises:
            TooMany: One of the buckets is empty.
        """
        self.check(shares)
        self.spend(shares, amount)

    def check(self, shares: Sequence[str]) -> None:
        """Check that neither bucket is empty.

        Raises:
            TooMany: One of the buckets is empty.
        """
        for level, rates in enumerate(self._levels[: len(shares)]):
            rates.check("\0".join(shares[: level + 1]))

    def spend(self, shares: Sequence[str], amount: float) -> None:
        """Take an amount, even if the buckets do not hold it."""
        for level, rates in enumerate(self._levels[: len(shares)]):
            rates.spend("\0".join(shares[: level + 1]), amount)


class Refusals:
    """A rate limit for rejections, which delays them.

    A rejection costs the server almost as much as a small response, and clients may repeat a rejected request without
    a pause. So the rejections of each tenant, or of a network without a valid token, are sent one after another at a
    bounded rate. The first one is sent immediately, so a client that respects ``Retry-After`` is not delayed.

    Args:
        per_second: Rejections of one key per second.
        longest: The longest delay in seconds.
        keys: Keys whose state is kept.
    """

    def __init__(self, per_second: float, longest: float, keys: int = KEYS) -> None:
        self._seconds = 1 / per_second
        self._longest = longest
        self._next: LRUCache[str, float] = LRUCache(keys)

    def delay(self, key: str, now: float) -> float:
        """Return the seconds after which the next rejection of a key may be sent.

        Args:
            now: The time of a monotonic clock.
        """
        at = min(max(now, self._next.get(key, now)), now + self._longest)
        self._next[key] = at + self._seconds
        return at - now


class ConcurrencyLimit:
    """A limit on concurrent requests or streams: of the server, of each tenant, and of each caller.

    Args:
        what: The plural noun for what is limited; it is also the reason of a rejection.
        most: The limit of the server.
        parts: The limits of one key on each level: first of a tenant, then of a caller.
        setting: The name of the setting that holds the limit.
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
        """The current number."""
        return self._all

    @contextmanager
    def one(self, *keys: str) -> Iterator[None]:
        """Count one until the end of the block.

        Args:
            keys: The keys of the tenant and the caller; without keys only the limit of the server applies.

        Raises:
            TooMany: The tenant or the caller has reached its limit.
            Busy: The server has reached its limit.
        """
        holders = [keys[: level + 1] for level in range(len(keys))]
        for holder, part in zip(holders, self._parts, strict=False):
            if self._taken[holder] >= part:
                raise TooMany(
                    f"your limit of {part} {self._what} is reached: end one first, or raise {self._setting}", self._what
                )
        if self._all >= self._most:
            raise Busy(
                f"the server's limit of {self._most} {self._what} is reached: retry later, or raise {self._setting}",
                self._what,
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


# Time slices of the event loop

SLICE_SECONDS = 0.001
"""Seconds that one response or stream may work before it waits for its next turn."""


class WorkTurns:
    """A round-robin scheduler of work in the event loop, fair between tenants.

    A request takes about ten iterations of the event loop, and each iteration lasts as long as everything that is ready
    in it. So at most one time slice runs in each iteration: the tenants take turns, and the slices of one tenant run in
    FIFO order. However many large responses and streams a tenant has, each iteration delays the request of another
    tenant by about one slice.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By tenant, in the order of their turns; no queue is empty."""
        self._is_scheduled = False

    async def wait(self, tenant: str) -> None:
        """Wait for the tenant's turn."""
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
    """The time slice of one response or stream.

    Args:
        turns: The scheduler of the server.
        tenant: The tenant that the work is for.
    """

    def __init__(self, turns: WorkTurns, tenant: str) -> None:
        self._turns = turns
        self._tenant = tenant
        self._began = time.perf_counter()

    async def give_way(self) -> None:
        """Wait for the next turn if the time slice has elapsed.

        Time in which the caller awaits something else counts, too.
        """
        if time.perf_counter() - self._began > SLICE_SECONDS:
            await self._turns.wait(self._tenant)
            self._began = time.perf_counter()


# Memory of request bodies

BODY_BYTES = 64 * 1024 * 1024
"""The budget for all request bodies in memory, unless a tenant's part of it is less than two of the largest bodies."""


def largest_body(settings: ServerSettings) -> int:
    """Return the limit on the bytes of one request body."""
    return 2 * settings.max_content_bytes + 65536


class BodyBudget:
    """A budget for the bytes of request bodies in memory. Each tenant may use a part of it.

    The bytes of a body count from when they are read until the request ends.

    Args:
        most: The bytes of all tenants.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_tenant = most // TENANT_SHARE
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """The bytes in use."""
        return self._taken.total()

    @contextmanager
    def request(self, tenant: str) -> Iterator[Callable[[int], None]]:
        """Provide a function that reserves bytes for a request's body until the end of the block.

        The function raises TooMany if the tenant's bodies would exceed its part, and Busy if all bodies together would
        exceed the budget.
        """
        held = 0

        def count(size: int) -> None:
            nonlocal held
            if self._taken[tenant] + size > self._of_tenant:
                raise TooMany(
                    f"the bodies of your requests in progress take more than {self._of_tenant:,} bytes: send fewer or "
                    "smaller requests at a time",
                    "body bytes",
                )
            if self.taken + size > self._most:
                raise Busy(f"request bodies take more than {self._most:,} bytes: retry later", "body bytes")
            self._taken[tenant] += size
            held += size

        try:
            yield count
        finally:
            self._taken[tenant] -= held
            if not self._taken[tenant]:
                del self._taken[tenant]


def _parts(most: int) -> tuple[int, int]:
    """Return the limits of one tenant and one caller."""
    of_tenant = max(1, most // TENANT_SHARE)
    return of_tenant, max(1, of_tenant // CALLER_SHARE)


class Limits:
    """All limits of one server.

    Attributes:
        rates: Requests per second.
        events: Appended events per second.
        bytes: Bytes of request bodies per second.
        identifying: Concurrent requests whose token is being validated, by network.
        requests: Concurrent requests.
        streams: Open streams.
        turns: The scheduler of work in the event loop.
        bodies: Bytes of request bodies in memory.
        refusals: Rejections per second.
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
