"""The comparisons by name, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent_manager.bench.against_peers import against_peers
from agent_manager.bench.appending import many_callers, one_caller
from agent_manager.bench.attached import attached
from agent_manager.bench.bulk import bulk
from agent_manager.bench.figures import Figure
from agent_manager.bench.gate import gate
from agent_manager.bench.growing import growing
from agent_manager.bench.log_reading import log_reading
from agent_manager.bench.projecting import projecting
from agent_manager.bench.reading import reading
from agent_manager.bench.rebuilding import rebuilding
from agent_manager.bench.searching import searching
from agent_manager.bench.sessions import sessions
from agent_manager.bench.sizing import sizing
from agent_manager.bench.table_reading import table_reading
from agent_manager.bench.visible import visible
from agent_manager.bench.waking import waking
from agent_manager.bench.walls import walls
from agent_manager.bench.work import Bench


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison.

    Attributes:
        name: as one types it.
        run: measures, and returns its figures.
    """

    name: str
    run: Callable[[Bench], Awaitable[list[Figure]]]


COMPARISONS = (
    Comparison("one-caller", one_caller),
    Comparison("many-callers", many_callers),
    Comparison("peers", against_peers),
    Comparison("bulk", bulk),
    Comparison("attached", attached),
    Comparison("waking", waking),
    Comparison("visible", visible),
    Comparison("gate", gate),
    Comparison("reading", reading),
    Comparison("log-reading", log_reading),
    Comparison("tables", table_reading),
    Comparison("sessions", sessions),
    Comparison("size", sizing),
    Comparison("walls", walls),
    Comparison("growing", growing),
    Comparison("projecting", projecting),
    Comparison("rebuilding", rebuilding),
    Comparison("searching", searching),
)
