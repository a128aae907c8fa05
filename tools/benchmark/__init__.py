"""The benchmark: the store against the limit that the driver sets, and against alternatives (README.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tools.benchmark import (
    append,
    audit,
    frameworks,
    graph_steps,
    latency,
    peers,
    projections,
    read,
    security,
)
from tools.benchmark.measurement import Benchmark, Figure

Comparison: TypeAlias = Callable[[Benchmark], Awaitable[list[Figure]]]
"""A measurement, which returns its figures."""
COMPARISONS: dict[str, Comparison] = {
    "one-caller": append.one_caller,
    "many-callers": append.many_callers,
    "peers": peers.append_of_peers,
    "a2a-sdk": frameworks.a2a_sdk,
    "slow-flush": append.slow_flush,
    "bulk": append.bulk,
    "attached": append.attached,
    "notification": latency.notification,
    "visible": latency.visible,
    "gate": append.gate,
    "reading": read.events,
    "log-reading": read.log,
    "tables": read.messages,
    "sessions": read.sessions,
    "adk-sessions": frameworks.google_adk,
    "openai-sessions": frameworks.openai_agents,
    "size": append.size,
    "graph-steps": graph_steps.graph_steps,
    "security": security.security,
    "audit": audit.audit,
    "growing": append.growing,
    "projecting": projections.projecting,
    "rebuilding": projections.rebuilding,
    "searching": projections.searching,
}
"""The comparisons, in the order in which they run."""
