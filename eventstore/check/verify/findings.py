"""What a comparison finds: counts, and violations with the history that shows each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What can be wrong."""

    LOST = "an acknowledged event is not in the log"
    MOVED = "an event does not stand where it was acknowledged"
    TWICE = "an event is in the log twice"
    SAME_POSITION = "two events have one position"
    HALF = "only a part of an append is in the log"
    UNWANTED = "a refused or aborted append is in the log"
    FOREIGN = "an event is in the log that nobody appended"
    ALTERED = "an event is not stored as it was appended"
    VERSIONS = "versions within a conversation do not rise by one in order of position"
    EXPECTATION = "an append was accepted against the version it expected"
    WRONGLY_REFUSED = "an append was refused though the version it expected was right"
    MISSED = "a reader never saw an event"
    PASSED = "a checkpoint passed an event that the reader had not seen"
    REPEATED = "a reader saw an event twice"
    DISORDER = "a reader saw an event after a later one"
    INVENTED = "a reader saw an event that is not in the log"
    MISREAD = "a reader saw an event otherwise than it is stored"
    STUCK = "a reader did not come to the end of the log"
    ERROR = "an error that says neither that nothing was written nor that the outcome is unknown"
    HUNG = "an append does not return: its writer did not end when it was told to"
    UNHANDLED = "an error in a task or a callback that nobody handled"
    CRASH = "a process ended by itself"


@dataclass(frozen=True, order=True)
class Line:
    """A line of a history.

    Attributes:
        time: seconds since 1970; None where it has none, as in the log at the end.
        who: the journal that it is from.
        what: happened.
    """

    time: float | None
    who: str
    what: str


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong.

    Attributes:
        what: in a sentence.
        history: the lines that show it, and no others, in order of time.
    """

    kind: Kind
    what: str
    history: tuple[Line, ...]

    @property
    def length(self) -> tuple[int, float]:
        """By which the shortest is found: the number of lines, then the time they span."""
        times = [line.time for line in self.history if line.time is not None]
        return len(self.history), max(times) - min(times) if times else 0.0


def in_order(lines: list[Line]) -> tuple[Line, ...]:
    """A history: by time, what has none at the end."""
    return tuple(sorted(dict.fromkeys(lines), key=lambda line: (line.time is None, line.time or 0.0)))


@dataclass
class Appends:
    """How many appends came to which end."""

    acknowledged: int = 0
    unknown_and_found: int = 0
    unknown_and_absent: int = 0
    refused: int = 0
    aborted: int = 0


@dataclass
class Reading:
    """What readers did."""

    readers: int = 0
    incarnations: int = 0
    deliveries: int = 0
    checkpoints: int = 0


MOST_KEPT = 20
"""Violations of a kind of which the history is kept; all are counted."""


@dataclass
class Findings:
    """The result of a comparison.

    Attributes:
        counts: violations by kind, all of them.
        kept: some of each kind, with their histories.
    """

    appends: Appends = field(default_factory=Appends)
    reading: Reading = field(default_factory=Reading)
    events: int = 0
    conversations: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    kept: list[Violation] = field(default_factory=list)

    def wants(self, kind: Kind) -> bool:
        """Counts a violation; whether its history is wanted too."""
        self.counts[kind] += 1
        return self.counts[kind] <= MOST_KEPT

    def keep(self, kind: Kind, what: str, lines: list[Line]) -> None:
        """Keeps a violation that was counted."""
        self.kept.append(Violation(kind, what, in_order(lines)))

    def shortest(self) -> list[Violation]:
        """The shortest of each kind, the shortest first."""
        kinds = {violation.kind for violation in self.kept}
        best = [min((v for v in self.kept if v.kind is kind), key=lambda v: v.length) for kind in kinds]
        return sorted(best, key=lambda violation: (violation.length, violation.kind))
