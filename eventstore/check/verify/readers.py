"""What a reader saw, line by line, against the log in its order. Nothing grows with the length of either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eventstore.check.journal import lines
from eventstore.check.verify.findings import Findings, Kind, Line
from eventstore.check.verify.history import append_lines, delivered, event, log_line
from eventstore.check.verify.records import Records, Stored

_MOST_MISSED = 10_000
"""Missed events that are remembered, in case they come later; beyond, they are only counted."""


@dataclass
class _Missed:
    """An event that was passed over."""

    event: Stored
    shown: list[Line]
    passed: bool = False


@dataclass
class _Segment:
    """From a beginning of reading to its end."""

    after: int
    expected: Iterator[Stored]
    next: Stored | None = None
    before: tuple[float, str] | None = None
    """The delivery before: when, and the journal's words."""
    missed: dict[int, _Missed] = field(default_factory=dict)
    ended: bool = False


class ReaderCheck:
    """Checks one reader through all its incarnations."""

    def __init__(self, records: Records, findings: Findings, name: str) -> None:
        self._records = records
        self._findings = findings
        self._name = name
        self._tenant: str | None = None
        self._keeps_checkpoint = False
        self._time = 0.0
        self._reached = 0
        self._passed: set[int] = set()
        self._segment = _Segment(0, iter(()))

    def read(self, journals: Sequence[Path]) -> None:
        """Reads its journals, the earliest first."""
        self._findings.reading.readers += 1
        for journal in journals:
            self._findings.reading.incarnations += 1
            for line in lines(journal):
                word, _, rest = line.partition(" ")
                getattr(self, _STEPS[word])(rest)
            self._end_segment()
        if not self._segment.ended:
            self._say_stuck()

    def _kind(self, rest: str) -> None:
        kind, _, tenant = rest.partition(" ")
        self._keeps_checkpoint = kind in ("file", "table", "tenant")
        self._tenant = tenant or None

    def _at(self, rest: str) -> None:
        self._time = float(rest)

    def _start(self, rest: str) -> None:
        self._end_segment()
        after = int(rest)
        if self._keeps_checkpoint:
            self._look_at_checkpoint(after, f"begins again after its checkpoint {after}")
        expected = self._records.log_after(after, self._tenant)
        self._segment = _Segment(after, expected, next(expected, None))

    def _see(self, rest: str) -> None:
        self._findings.reading.deliveries += 1
        segment = self._segment
        if segment.next is not None and segment.next.text == rest:  # nearly always
            position = segment.next.position
            segment.next = next(segment.expected, None)
        else:
            position = int(rest[: rest.index(" ")])
            self._see_other(position, rest)
        self._reached = max(self._reached, position)
        segment.before = (self._time, rest)

    def _see_other(self, position: int, rest: str) -> None:
        segment = self._segment
        line = Line(self._time, self._name, f"sees {delivered(rest)}")
        while segment.next is not None and segment.next.position < position:
            self._miss(segment.next, line)
            segment.next = next(segment.expected, None)
        if segment.next is not None and segment.next.position == position:
            if segment.next.text != rest:
                self._say(Kind.MISREAD, segment.next, [line, log_line(segment.next)])
            segment.next = next(segment.expected, None)
            return
        found = next((e for e in self._records.stored("position", position) if e.id == rest.split(" ")[4]), None)
        if found is None:
            if self._findings.wants(Kind.INVENTED):
                what = f"{self._name} saw {delivered(rest)}"
                self._findings.keep(Kind.INVENTED, what, [line, Line(None, "log", f"has no such event at {position}")])
        elif segment.missed.pop(position, None) is not None:
            self._say(Kind.DISORDER, found, [*self._shown(segment.before), line])
        else:
            self._say(Kind.REPEATED, found, [*self._shown(segment.before), line])

    def _miss(self, stored: Stored, line: Line) -> None:
        segment = self._segment
        if len(segment.missed) >= _MOST_MISSED:
            self._findings.wants(Kind.MISSED)
            return
        segment.missed[stored.position] = _Missed(stored, [*self._shown(segment.before), line])

    def _check(self, rest: str) -> None:
        self._findings.reading.checkpoints += 1
        self._look_at_checkpoint(int(rest), f"moves its checkpoint to {rest}")

    def _look_at_checkpoint(self, position: int, what: str) -> None:
        """No event up to it may be unseen."""
        line = Line(self._time, self._name, what)
        for missed in self._segment.missed.values():
            if not missed.passed and missed.event.position <= position:
                missed.passed = True
                missed.shown.append(line)
        if position > self._reached:
            for stored in self._records.log_after(self._reached, self._tenant):
                if stored.position > position:
                    break
                if self._findings.wants(Kind.PASSED):
                    self._keep(Kind.PASSED, stored, [*self._shown(self._segment.before), line])
                if len(self._passed) < _MOST_MISSED:
                    self._passed.add(stored.position)
            self._reached = position

    def _error(self, rest: str) -> None:
        if self._findings.wants(Kind.ERROR):
            line = Line(self._time, self._name, f"raises {rest}")
            self._findings.keep(Kind.ERROR, f"{self._name} raises {rest}", [line])

    def _end(self, _: str) -> None:
        segment = self._segment
        segment.ended = True
        line = Line(self._time, self._name, "has come to the end")
        while segment.next is not None:
            self._miss(segment.next, line)
            segment.next = next(segment.expected, None)

    def _end_segment(self) -> None:
        """What has not come by now never came in it."""
        for missed in self._segment.missed.values():
            # Where a checkpoint passed it before anything later was seen, that was said already.
            if missed.event.position not in self._passed:
                self._say(Kind.PASSED if missed.passed else Kind.MISSED, missed.event, missed.shown)
        self._segment.missed.clear()

    def _say_stuck(self) -> None:
        if self._findings.wants(Kind.STUCK):
            shown = self._shown(self._segment.before)
            if (unseen := self._segment.next) is not None:
                shown += append_lines(self._records, self._records.append_of(unseen.id), unseen.id)
                shown.append(log_line(unseen))
            self._findings.keep(Kind.STUCK, f"{self._name} stopped after position {self._reached}", shown)

    def _say(self, kind: Kind, stored: Stored, shown: list[Line]) -> None:
        if self._findings.wants(kind):
            self._keep(kind, stored, shown)

    def _keep(self, kind: Kind, stored: Stored, shown: list[Line]) -> None:
        written = append_lines(self._records, self._records.append_of(stored.id), stored.id)
        self._findings.keep(kind, f"{self._name}: {event(stored)}", [*written, *shown])

    def _shown(self, before: tuple[float, str] | None) -> list[Line]:
        return [] if before is None else [Line(before[0], self._name, f"sees {delivered(before[1])}")]


_STEPS = {
    "kind": "_kind",
    "@": "_at",
    "start": "_start",
    "+": "_see",
    "check": "_check",
    "error": "_error",
    "end": "_end",
}
