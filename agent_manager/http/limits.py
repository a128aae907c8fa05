"""How much one key, and all together, may ask for: requests a second, requests at a time, open streams.

Those without a token, who are this machine's own, are not told apart: for them only what all together may have counts.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cachetools import LRUCache

from agent_manager.http.refusals import Busy, TooMany
from eventstore import Settings

KEYS = 100_000
"""Of so many keys the rate is remembered; one that is forgotten begins anew."""
BURST_SECONDS = 2
"""After a pause a key may have the requests of so many seconds at once."""


class Rates:
    """A token bucket for each key.

    Args:
        per_second: requests of one key.
        clock: seconds, which only grow.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic, keys: int = KEYS) -> None:
        self._per_second = per_second
        self._most = max(1.0, BURST_SECONDS * per_second)
        self._clock = clock
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(keys)

    def take(self, key: str) -> None:
        """One request more.

        Raises:
            TooMany: it is too early.
        """
        now = self._clock()
        left, at = self._left.get(key, (self._most, now))
        left = min(self._most, left + (now - at) * self._per_second)
        if left < 1:
            self._left[key] = left, now
            wait = (1 - left) / self._per_second
            raise TooMany(
                f"more than {self._per_second:g} requests a second of one key: wait, or raise "
                "EVENTSTORE_RATE_PER_SECOND",
                "rate",
                max(1, math.ceil(wait)),
            )
        self._left[key] = left - 1, now


class Places:
    """So many things at a time, of which one key may have a part.

    Args:
        what: they are, in the plural.
        most: of all keys together.
        of_key: of one key.
        setting: that says how many.
    """

    def __init__(self, what: str, most: int, of_key: int, setting: str) -> None:
        self._what = what
        self._most = most
        self._of_key = of_key
        self._setting = setting
        self._taken: Counter[str | None] = Counter()
        self._all = 0

    @property
    def taken(self) -> int:
        """How many there are now."""
        return self._all

    @contextmanager
    def one(self, key: str | None) -> Iterator[None]:
        """Takes a place until the end of the block.

        Raises:
            Busy: there is none.
            TooMany: the key has its part already.
        """
        if self._all >= self._most:
            raise Busy(
                f"the server has {self._most} {self._what} already: come again, or raise {self._setting}", self._what
            )
        if key is not None and self._taken[key] >= self._of_key:
            raise TooMany(
                f"this key has {self._of_key} {self._what} already: end one first, or raise {self._setting}", self._what
            )
        self._all += 1
        self._taken[key] += 1
        try:
            yield
        finally:
            self._all -= 1
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


class Limits:
    """All of one server.

    Attributes:
        rates: of requests, by key.
        requests: that are under way.
        requests_of_keys: the same by key: no key takes all the places, however slowly it sends and reads.
        streams: endless answers.
    """

    def __init__(self, settings: Settings) -> None:
        most, streams = settings.max_requests, settings.max_streams
        self.rates = Rates(settings.rate_per_second)
        self.requests = Places("requests under way", most, most, "EVENTSTORE_MAX_REQUESTS")
        self.requests_of_keys = Places("requests under way", most, max(1, most // 2), "EVENTSTORE_MAX_REQUESTS")
        self.streams = Places("open streams", streams, max(1, streams // 4), "EVENTSTORE_MAX_STREAMS")
