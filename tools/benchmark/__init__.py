"""The benchmark: the store against the limit that the driver sets, and against alternatives (README.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tools.benchmark import append, latency, peers, projections, read, security
from tools.benchmark.measurement import Benchmark, Figure


@dataclass(frozen=True, slots=True)
class Comparison:
    """A named comparison, which measures and returns its figures."""

    name: str
    run: Callable[[Benchmark], Awaitable[list[Figure]]]


COMPARISONS = (
    Comparison("one-caller", append.one_caller),
    Comparison("many-callers", append.many_callers),
    Comparison("peers", peers.append_of_peers),
    Comparison("bulk", append.bulk),
    Comparison("attached", append.attached),
    Comparison("notification", latency.notification),
    Comparison("visible", latency.visible),
    Comparison("gate", append.gate),
    Comparison("reading", read.events),
    Comparison("log-reading", read.log),
    Comparison("tables", read.messages),
    Comparison("sessions", read.sessions),
    Comparison("size", append.size),
    Comparison("security", security.security),
    Comparison("growing", append.growing),
    Comparison("projecting", projections.projecting),
    Comparison("rebuilding", projections.rebuilding),
    Comparison("searching", projections.searching),
)
"""The comparisons, in the order in which they run."""
