"""Counts of the work of a store, as plain numbers, which a monitoring system reads at any time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

from eventstore.errors import EventStoreError

LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds. A durable append takes some milliseconds; basic operations should take less than 200 ms."""
BATCH_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)
"""Upper bounds in events, up to the largest append."""


class Histogram:
    """A distribution of values, as counts by upper bound.

    Attributes:
        bounds: the upper bounds, inclusive and ascending.
        counts: the number of values in each interval; the last one is above all bounds.
        sum: of the values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Timer:
    """A context manager that counts the time of its block; or, if it fails, the error of the store that ended it.

    A class, because a context manager made of a generator takes three times as long.
    """

    __slots__ = ("_began", "_errors", "_seconds")

    def __init__(self, seconds: Histogram, errors: Counter[str] | None = None) -> None:
        self._seconds = seconds
        self._errors = errors

    def __enter__(self) -> None:
        """Begin to measure."""
        self._began = perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Count the time, or the error."""
        if kind is None:
            self._seconds.observe(perf_counter() - self._began)
        elif self._errors is not None and issubclass(kind, EventStoreError):
            self._errors[kind.__name__] += 1


class StoreMetrics:
    """The counters of one store, from when it was created. They only increase.

    Attributes:
        append_seconds: the time of each append that succeeded, from the call to its result.
        append_errors: the number of appends that failed, by the name of the error's class.
        appended_events: events that are stored; those of a repeated append are not counted again.
        batch_events: the events of each statement that appends.
        notifications: of new events, received by the listening connection.
        search_seconds: the time of each page of search results.
    """

    def __init__(self) -> None:
        self.append_seconds = Histogram(LATENCY_BOUNDS)
        self.append_errors = Counter[str]()
        self.appended_events = 0
        self.batch_events = Histogram(BATCH_BOUNDS)
        self.notifications = 0
        self.search_seconds = Histogram(LATENCY_BOUNDS)

    def appending(self) -> Timer:
        """Return a timer for an append."""
        return Timer(self.append_seconds, self.append_errors)

    def searching(self) -> Timer:
        """Return a timer for a search."""
        return Timer(self.search_seconds)
