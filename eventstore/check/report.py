"""What a check reports, for programs and for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from eventstore.check.settings import Fault
from eventstore.check.verify import Appends, Kind, Reading, Violation

_FAULTS = {
    Fault.KILL_WRITER: "writers killed",
    Fault.KILL_READER: "readers killed",
    Fault.TERMINATE: "sessions terminated",
    Fault.CUT: "connections cut",
    Fault.HALF_OPEN: "half-open connections",
    Fault.FOREIGN: "foreign transactions",
    Fault.KILL_SERVER: "servers killed",
}

_LONGEST = 500
"""Characters of a remark that are shown."""


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        server: its URL without a password; its version is apart.
        schema: what the check made and wrote to.
        is_kept: whether the schema is still there.
        journals: where they are, if they were kept.
        store, reader: what was checked, as ``module:Class``.
        seconds: how long was written and read under faults.
        conversations: with at least one event.
        faults: how many of each kind were injected.
        not_possible: what was not tried, and why.
        remarks: what processes of the check wrote on standard error, such as warnings of a driver.
        violations: how many of each kind.
        shortest: the violation of each kind with the shortest history, the shortest first.
    """

    server: str
    version: str
    schema: str
    is_kept: bool
    journals: str | None
    store: str
    reader: str
    seconds: float
    seed: int
    appends: Appends
    events: int
    conversations: int
    reading: Reading
    faults: Mapping[Fault, int]
    not_possible: tuple[str, ...]
    remarks: tuple[str, ...]
    violations: Mapping[Kind, int]
    shortest: tuple[Violation, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations

    def lines(self) -> Iterator[str]:
        """For people."""
        appends, reading = self.appends, self.reading
        yield f"server        PostgreSQL {self.version}, {self.server}"
        yield f"schema        {self.schema}, {'kept' if self.is_kept else 'dropped again'}"
        if self.journals:
            yield f"journals      {self.journals}"
        yield f"run           {self.seconds:g} seconds, seed {self.seed}; store {self.store}, reader {self.reader}"
        yield (
            f"appends       {appends.acknowledged:,} acknowledged, {appends.unknown_and_found:,} unknown and found, "
            f"{appends.unknown_and_absent:,} unknown and absent, {appends.refused:,} refused, "
            f"{appends.aborted:,} rolled back"
        )
        yield f"log           {self.events:,} events in {self.conversations:,} conversations"
        yield (
            f"readers       {reading.readers:,} in {reading.incarnations:,} incarnations: "
            f"{reading.deliveries:,} deliveries, {reading.checkpoints:,} checkpoints"
        )
        counts = [f"{count:,} {_FAULTS[fault]}" for fault, count in sorted(self.faults.items())]
        yield f"faults        {', '.join(counts) or 'none'}"
        for reason in self.not_possible:
            yield f"not possible  {reason}"
        for said in self.remarks:
            yield f"remark        {said[:_LONGEST]}"
        yield f"violations    {sum(self.violations.values()):,}" if self.violations else "violations    none"
        for kind, count in sorted(self.violations.items()):
            yield f"              {count:,}: {kind}"
        for violation in self.shortest:
            yield ""
            yield from shown(violation)

    def values(self) -> dict[str, object]:
        """For programs: plain values for JSON."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return named | {
            "appends": vars(self.appends),
            "reading": vars(self.reading),
            "faults": {fault.value: count for fault, count in self.faults.items()},
            "violations": {kind.name.lower(): count for kind, count in self.violations.items()},
            "shortest": [
                {
                    "kind": violation.kind.name.lower(),
                    "meaning": violation.kind.value,
                    "what": violation.what,
                    "history": [vars(line) for line in violation.history],
                }
                for violation in self.shortest
            ],
        }


def shown(violation: Violation) -> Iterator[str]:
    """A violation and its history, a line each."""
    yield f"{violation.kind}"
    yield f"  {violation.what}"
    for line in violation.history:
        yield f"    {_clock(line.time)}  {line.who:<16}  {line.what}"


def _clock(time: float | None) -> str:
    return "at the end  " if time is None else f"{datetime.fromtimestamp(time, UTC):%H:%M:%S.%f}"[:12]
