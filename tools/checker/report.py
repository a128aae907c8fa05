"""The report of a check: what was done, and violations with the shortest history that proves each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from tools.checker.settings import CheckSettings, Fault

MAX_HISTORIES = 20
"""Violations of a kind whose history is kept; all are counted."""
_MAX_REMARK_CHARACTERS = 500
_FAULTS = {
    Fault.KILL_WRITER: "writers killed",
    Fault.KILL_READER: "readers killed",
    Fault.TERMINATE: "sessions terminated",
    Fault.CUT: "connections cut",
    Fault.HALF_OPEN: "half-open connections",
    Fault.FOREIGN: "foreign transactions",
    Fault.KILL_SERVER: "servers killed",
}


class Kind(StrEnum):
    """A kind of violation."""

    LOST = "an acknowledged event is not in the log"
    MOVED = "an event is not at the position and version that were acknowledged"
    TWICE = "an event is in the log twice"
    SAME_POSITION = "two events have one position"
    HALF = "only a part of an append is in the log"
    UNWANTED = "a refused or aborted append is in the log"
    FOREIGN = "an event is in the log that no writer appended"
    ALTERED = "an event is not stored as it was appended"
    VERSIONS = "versions within a conversation do not rise by one in order of position"
    EXPECTATION = "an append was accepted against the version it expected"
    WRONGLY_REFUSED = "an append was refused though the version it expected was right"
    MISSED = "a reader never saw an event"
    PASSED = "a checkpoint passed an event that the reader had not seen"
    REPEATED = "a reader saw an event twice"
    DISORDER = "a reader saw an event after a later one"
    INVENTED = "a reader saw an event that is not in the log"
    MISREAD = "a reader saw an event that differs from the stored one"
    STUCK = "a reader did not come to the end of the log"
    ERROR = "an error is neither a refusal nor an unknown outcome"
    HUNG = "an append does not return: its writer did not end when it was stopped"
    UNHANDLED = "an error in a task or a callback was not handled"
    CRASH = "a process ended by itself"


@dataclass(frozen=True, order=True)
class Line:
    """A line of a history.

    Attributes:
        time: seconds since 1970; None for the log at the end.
        who: the process whose journal it is from.
        what: what happened.
    """

    time: float | None
    who: str
    what: str


@dataclass(frozen=True)
class Violation:
    """A violation of a property that the check verifies.

    Attributes:
        what: a sentence.
        history: the lines that show it, and no others, in order of time.
    """

    kind: Kind
    what: str
    history: tuple[Line, ...]

    @property
    def length(self) -> tuple[int, float]:
        """The number of lines, and the time they span, by which the shortest is found."""
        times = [line.time for line in self.history if line.time is not None]
        return len(self.history), max(times) - min(times) if times else 0.0

    def lines(self) -> Iterator[str]:
        """Yield the violation and its history as text."""
        yield f"{self.kind}"
        yield f"  {self.what}"
        for line in self.history:
            clock = "at the end  "
            if line.time is not None:
                clock = f"{datetime.fromtimestamp(line.time, UTC):%H:%M:%S.%f}"[:12]
            yield f"    {clock}  {line.who:<16}  {line.what}"


@dataclass
class AppendCounts:
    """Numbers of appends by outcome."""

    acknowledged: int = 0
    unknown_and_found: int = 0
    unknown_and_absent: int = 0
    refused: int = 0
    aborted: int = 0


@dataclass
class ReadCounts:
    """Numbers of what readers did."""

    readers: int = 0
    incarnations: int = 0
    deliveries: int = 0
    checkpoints: int = 0


@dataclass
class Findings:
    """The result of a comparison.

    Attributes:
        counts: violations by kind, all of them.
        kept: some of each kind, with their histories.
    """

    appends: AppendCounts = field(default_factory=AppendCounts)
    reading: ReadCounts = field(default_factory=ReadCounts)
    events: int = 0
    conversations: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    kept: list[Violation] = field(default_factory=list)

    def count(self, kind: Kind) -> bool:
        """Count a violation; return whether its history should be kept too."""
        self.counts[kind] += 1
        return self.counts[kind] <= MAX_HISTORIES

    def keep(self, kind: Kind, what: str, lines: list[Line]) -> None:
        """Keep a violation that was counted, its history in order of time, lines without a time last."""
        history = sorted(dict.fromkeys(lines), key=lambda line: (line.time is None, line.time or 0.0))
        self.kept.append(Violation(kind, what, tuple(history)))

    def add(self, kind: Kind, what: str, lines: list[Line]) -> None:
        """Count a violation, and keep it if its history should be kept."""
        if self.count(kind):
            self.keep(kind, what, lines)

    def shortest(self) -> list[Violation]:
        """Return the shortest violation of each kind, the shortest first."""
        kinds = {violation.kind for violation in self.kept}
        best = [min((v for v in self.kept if v.kind is kind), key=lambda v: v.length) for kind in kinds]
        return sorted(best, key=lambda violation: (violation.length, violation.kind))


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        server: URL without a password.
        schema: schema that the check created.
        journals: folder of the journals, if they were kept.
        check: the settings of the check.
        findings: what the comparison found.
        faults: number of injected faults by kind.
        not_possible: what was not tried, and why.
        remarks: what processes wrote on standard error, such as warnings of a driver.
    """

    server: str
    version: str
    schema: str
    journals: str | None
    check: CheckSettings
    findings: Findings
    faults: Mapping[Fault, int]
    not_possible: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """True if nothing was violated."""
        return not self.findings.counts

    def lines(self) -> Iterator[str]:
        """Yield the report as text."""
        check, findings = self.check, self.findings
        appends, reading = findings.appends, findings.reading
        yield f"server        PostgreSQL {self.version}, {self.server}"
        yield f"schema        {self.schema}, {'kept' if check.keep else 'dropped again'}"
        if self.journals:
            yield f"journals      {self.journals}"
        yield f"run           {check.seconds:g} seconds, seed {check.seed}; store {check.store}, reader {check.reader}"
        yield (
            f"appends       {appends.acknowledged:,} acknowledged, {appends.unknown_and_found:,} unknown and found, "
            f"{appends.unknown_and_absent:,} unknown and absent, {appends.refused:,} refused, "
            f"{appends.aborted:,} rolled back"
        )
        yield f"log           {findings.events:,} events in {findings.conversations:,} conversations"
        yield (
            f"readers       {reading.readers:,} in {reading.incarnations:,} incarnations: "
            f"{reading.deliveries:,} deliveries, {reading.checkpoints:,} checkpoints"
        )
        counts = [f"{count:,} {_FAULTS[fault]}" for fault, count in sorted(self.faults.items())]
        yield f"faults        {', '.join(counts) or 'none'}"
        for reason in self.not_possible:
            yield f"not possible  {reason}"
        for remark in self.remarks:
            yield f"remark        {remark[:_MAX_REMARK_CHARACTERS]}"
        yield f"violations    {findings.counts.total():,}" if findings.counts else "violations    none"
        for kind, count in sorted(findings.counts.items()):
            yield f"              {count:,}: {kind}"
        for violation in findings.shortest():
            yield ""
            yield from violation.lines()

    def values(self) -> dict[str, object]:
        """Return the report as plain values for JSON."""
        check, findings = self.check, self.findings
        return {
            "server": self.server,
            "version": self.version,
            "schema": self.schema,
            "is_kept": check.keep,
            "journals": self.journals,
            "store": check.store,
            "reader": check.reader,
            "seconds": check.seconds,
            "seed": check.seed,
            "appends": vars(findings.appends),
            "events": findings.events,
            "conversations": findings.conversations,
            "reading": vars(findings.reading),
            "faults": {fault.value: count for fault, count in self.faults.items()},
            "not_possible": self.not_possible,
            "remarks": self.remarks,
            "violations": {kind.name.lower(): count for kind, count in findings.counts.items()},
            "shortest": [
                {
                    "kind": violation.kind.name.lower(),
                    "meaning": violation.kind.value,
                    "what": violation.what,
                    "history": [vars(line) for line in violation.history],
                }
                for violation in findings.shortest()
            ],
        }
