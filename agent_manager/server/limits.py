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
from dataclasses import dataclass

from cachetools import LRUCache

from agent_manager.server.problems import Busy, TooMany
from agent_manager.settings import ServerSettings

KEYS = 100_000
"""Keys whose state is kept; the least recently used one is dropped first, and starts anew when it returns."""
BURST_SECONDS = 2
"""The burst: a bucket holds the amount of this many seconds."""
TENANT_SHARE = 2
"""The divisor of a tenant's share: at most 1/2 of the server's limit, so one tenant never uses up all of it."""
CALLER_SHARE = 2
"""The divisor of a caller's share: at most 1/2 of its tenant's."""
TENANT_RATE = 4
"""The rate of requests of a tenant, as a multiple of the rate of one caller."""
REJECTIONS_PER_SECOND, REJECTION_SECONDS = 50, 5.0
"""Rejections per second that are sent to one tenant or network, and the longest delay of one in seconds."""
BODY_BYTES = 64 * 1024 * 1024
"""The budget for all request bodies in memory, unless a tenant's part of it is less than two of the largest bodies."""

MAX_CONTAINERS = 1_000_000
"""The most objects and arrays in a body, each of some 70 bytes in parsed form; braces in texts count, too."""


@dataclass(frozen=True)
class _Buckets:
    name: str
    per_second: float
    capacity: float
    left: LRUCache[tuple[str, ...], tuple[float, float]]
    """The level of each bucket when it was last changed, and the time of that change."""


class RateLimit:
    """Token buckets: one for each tenant, and one for each caller of a tenant.

    An amount may exceed what a bucket holds. Further requests are then rejected until the bucket has been refilled.

    Args:
        what: The plural noun for what is limited.
        per_second: The rate of one caller.
        tenant_rate: The rate of one tenant, as a multiple of the rate of one caller.
        setting: The name of the setting that holds the rate.
        clock: Returns seconds and never goes back.
        holder: Whose the first bucket is.
    """

    def __init__(
        self,
        what: str,
        per_second: float,
        tenant_rate: float,
        setting: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        holder: str = "tenant",
    ) -> None:
        burst = max(1.0, BURST_SECONDS * per_second)
        self._levels = (
            _Buckets(f"{what} of one {holder}", tenant_rate * per_second, tenant_rate * burst, LRUCache(KEYS)),
            _Buckets(f"{what} of one key", per_second, burst, LRUCache(KEYS)),
        )
        self._setting = setting
        self._reason = f"{what.replace(' ', '_')}_per_second"
        self._clock = clock

    def take(self, keys: Sequence[str], amount: float = 1) -> None:
        """Take an amount if neither bucket is empty.

        Args:
            keys: The tenant and the caller (:func:`~agent_manager.server.authorization.limit_keys_of`).

        Raises:
            TooMany: See :meth:`check`.
        """
        self.check(keys)
        self.spend(keys, amount)

    def check(self, keys: Sequence[str]) -> None:
        """Check that neither bucket is empty.

        Raises:
            TooMany: One of them is empty; ``Retry-After`` says when to retry.
        """
        for buckets, _, left in self._left(keys):
            if left < 1:
                raise TooMany(
                    f"more than {buckets.per_second:g} {buckets.name} per second: retry later, or raise "
                    f"{self._setting}",
                    self._reason,
                    max(1, math.ceil((1 - left) / buckets.per_second)),
                )

    def spend(self, keys: Sequence[str], amount: float) -> None:
        """Take an amount, even if the buckets do not hold it."""
        for buckets, key, left in self._left(keys):
            buckets.left[key] = left - amount, self._clock()

    def _left(self, keys: Sequence[str]) -> Iterator[tuple[_Buckets, tuple[str, ...], float]]:
        for level, buckets in enumerate(self._levels[: len(keys)], 1):
            key, now = tuple(keys[:level]), self._clock()
            left, at = buckets.left.get(key, (buckets.capacity, now))
            yield buckets, key, min(buckets.capacity, left + (now - at) * buckets.per_second)


class RejectionDelays:
    """A rate limit for rejections, which delays them.

    A rejection costs the server almost as much as a small response, and clients may repeat a rejected request without
    a pause. So the rejections of each tenant, or of a network without a valid token, are sent one after another at a
    bounded rate. The first one is sent immediately, so a client that respects ``Retry-After`` is not delayed.

    Args:
        per_second: Rejections of one key per second.
        longest: The longest delay in seconds.
    """

    def __init__(self, per_second: float, longest: float) -> None:
        self._seconds = 1 / per_second
        self._longest = longest
        self._next: LRUCache[str, float] = LRUCache(KEYS)

    def delay(self, key: str, now: float) -> float:
        """Return the seconds after which the next rejection of a key may be sent.

        Args:
            now: The time of a monotonic clock.
        """
        at = min(max(now, self._next.get(key, now)), now + self._longest)
        self._next[key] = at + self._seconds
        return at - now


class SharedLimit:
    """A limit on what all requests hold at a time, such as streams or bytes: of the server, a tenant and a caller.

    Args:
        what: The plural noun for what is limited.
        most: The limit of the server.
        parts: The limits of one key on each level: first of a tenant, then of a caller.
        advice: What to do if the limit is reached.
        reason: The reason of a rejection, for the metrics; by default ``what``.
    """

    def __init__(self, what: str, most: int, parts: Sequence[int], advice: str, reason: str = "") -> None:
        self._what = what
        self._reason = reason or what.replace(" ", "_")
        self._most = most
        self._parts = tuple(parts)
        self._advice = advice
        self._taken: Counter[tuple[str, ...]] = Counter()
        """The amounts taken, by the keys of each level; the key of the server is empty."""

    @property
    def taken(self) -> int:
        """The amount that is taken now."""
        return self._taken[()]

    @contextmanager
    def holding(self, *keys: str) -> Iterator[Callable[[int], None]]:
        """Provide a function that takes an amount until the end of the block.

        The function raises TooMany if the tenant or the caller would exceed its part, and Busy if all would exceed the
        limit of the server.

        Args:
            keys: The tenant and the caller; without keys only the limit of the server applies.
        """
        holders = [keys[:level] for level in range(len(keys) + 1)]
        held = 0

        def take(amount: int) -> None:
            nonlocal held
            for holder, part in zip(holders[1:], self._parts, strict=False):
                if self._taken[holder] + amount > part:
                    raise TooMany(f"your limit of {part:,} {self._what} is reached: {self._advice}", self._reason)
            if self.taken + amount > self._most:
                raise Busy(
                    f"the server's limit of {self._most:,} {self._what} is reached: {self._advice}", self._reason
                )
            for holder in holders:
                self._taken[holder] += amount
            held += amount

        try:
            yield take
        finally:
            for holder in holders:
                self._taken[holder] -= held
                if not self._taken[holder]:
                    del self._taken[holder]

    @contextmanager
    def one(self, *keys: str) -> Iterator[None]:
        """Take one until the end of the block.

        Raises:
            TooMany, Busy: See :meth:`holding`.
        """
        with self.holding(*keys) as take:
            take(1)
            yield


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
        self.tenant = tenant
        self._began = time.perf_counter()

    async def give_way(self) -> None:
        """Wait for the next turn if the time slice has elapsed.

        Time in which the caller awaits something else counts, too.
        """
        if time.perf_counter() - self._began > SLICE_SECONDS:
            await self._turns.wait(self.tenant)
            self._began = time.perf_counter()


def largest_body(settings: ServerSettings) -> int:
    """Return the limit on the bytes of one request body: an event of the largest size, its escapes and what is around.

    Four of them are within :data:`BODY_BYTES` by default.
    """
    return settings.max_content_bytes * 5 // 4 + 65536


class Limits:
    """All limits of one server.

    Attributes:
        rates: Requests per second.
        open_rates: Requests per second without a valid token for pages that need none, by network.
        events: Appended events per second.
        bytes: Bytes of request bodies per second.
        identifying: Concurrent requests whose token is being validated, by network.
        requests: Concurrent requests.
        streams: Open streams.
        bodies: Bytes of request bodies in memory: of each from when it is read until its request ends.
        rejections: Rejections per second.
        turns: The scheduler of work in the event loop.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.rates = RateLimit("requests", settings.rate_per_second, TENANT_RATE, "EVENTSTORE_RATE_PER_SECOND")
        self.open_rates = RateLimit(
            "requests without a token", settings.rate_per_second, 1, "EVENTSTORE_RATE_PER_SECOND", holder="address"
        )
        self.events = _of_tenant("events", settings.events_per_second, "EVENTSTORE_EVENTS_PER_SECOND")
        self.bytes = _of_tenant("bytes", settings.bytes_per_second, "EVENTSTORE_BYTES_PER_SECOND")
        most = settings.max_requests
        advice = "retry when one has ended, or raise EVENTSTORE_MAX_REQUESTS"
        what = "requests from your address that have shown no valid token yet"
        self.identifying = SharedLimit(what, most, _parts(most)[:1], advice, "requests_without_valid_token")
        self.requests = SharedLimit("concurrent requests", most, _parts(most), advice)
        most = settings.max_streams
        advice = "retry when one has ended, or raise EVENTSTORE_MAX_STREAMS"
        self.streams = SharedLimit("open streams", most, _parts(most), advice)
        most = max(BODY_BYTES, 2 * TENANT_SHARE * largest_body(settings))
        advice = "send fewer or smaller requests at a time"
        self.bodies = SharedLimit("bytes of request bodies", most, _parts(most)[:1], advice)
        self.rejections = RejectionDelays(REJECTIONS_PER_SECOND, REJECTION_SECONDS)
        self.turns = WorkTurns()


def _of_tenant(what: str, per_second: float, setting: str) -> RateLimit:
    return RateLimit(what, per_second / CALLER_SHARE, CALLER_SHARE, setting)


def _parts(most: int) -> tuple[int, int]:
    of_tenant = max(1, most // TENANT_SHARE)
    return of_tenant, max(1, of_tenant // CALLER_SHARE)
