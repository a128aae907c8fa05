"""Verification: the appends that writers recorded, the log, and what readers recorded, compared with each other.

The records lie in a SQLite database, so that millions of them can be sorted and joined in little memory; a reader's
journal is compared with the log line by line, so memory grows with the length of neither.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path
from typing import Any, NamedTuple

from eventstore.database.queries import query
from tools.checker.adapter import ReadEvent
from tools.checker.child import KINDS_WITH_CHECKPOINT
from tools.checker.journal import read_lines, read_lines_with_offsets
from tools.checker.report import Findings, Kind, Line
from tools.checker.workload import Outcome

_CACHE_KIB = 64 * 1024
_FETCH_ROWS, _INSERT_ROWS = 2000, 5000
_MAX_MISSED = 10_000
"""Missed events that are kept in case they come later; beyond, they are only counted."""
_OUTCOMES = frozenset(outcome.value for outcome in Outcome)
_QUERIES = {
    Kind.LOST: "lost",
    Kind.MOVED: "moved",
    Kind.TWICE: "twice",
    Kind.SAME_POSITION: "same_position",
    Kind.HALF: "half",
    Kind.UNWANTED: "unwanted",
    Kind.FOREIGN: "foreign",
    Kind.ALTERED: "altered",
    Kind.VERSIONS: "versions",
}


def compare(records: Records, folder: Path, progress: Callable[[str], None] = lambda _: None) -> Findings:
    """Compare the journals of a folder with the log, which the records contain already.

    Args:
        progress: called with what is being compared.
    """
    findings = Findings()
    loader = AppendLoader(records, findings)
    journals = sorted(folder.glob("*.journal"))
    for journal in journals:
        if _process_of(journal).startswith(("writer", "checker")):
            progress(f"loading {journal.name}")
            loader.load(journal)
    progress("sorting")
    records.create_indexes()
    for kind, name in _QUERIES.items():
        progress(kind.value)
        for number, *ids in records.rows(name):
            if findings.count(kind):
                findings.keep(kind, *_describe_violation(records, number, ids))
    readers = [path for path in journals if _process_of(path).startswith("reader")]
    for name, of_reader in groupby(readers, _process_of):
        progress(f"comparing what {name} saw")
        ReaderVerification(records, findings, name).read(list(of_reader))
    findings.events = records.value("SELECT count(*) FROM log")
    findings.conversations = records.value("SELECT count(*) FROM (SELECT DISTINCT tenant, conversation FROM log)")
    for outcome, is_found, number in records.rows("outcomes"):
        name = outcome
        if outcome == Outcome.UNKNOWN:
            name = "unknown_and_found" if is_found else "unknown_and_absent"
        setattr(findings.appends, name, getattr(findings.appends, name) + number)
    return findings


def appends_in_flight(journal: Path) -> list[Line]:
    """Return the appends in flight when a journal ends: announced or repeated, without an outcome since."""
    announced: dict[int, dict[str, Any]] = {}
    in_flight: set[int] = set()
    for line in read_lines(journal):
        note = json.loads(line)
        if note["k"] == "try":
            announced[note["op"]] = note
        if note["k"] in ("try", "again"):
            in_flight.add(note["op"])
        elif note["k"] in _OUTCOMES:
            in_flight.discard(note["op"])
    return [line for op in sorted(in_flight) for line in _note_lines(_process_of(journal), [announced[op]])]


class StoredEvent(NamedTuple):
    """An event of the log."""

    position: int
    tenant: str
    conversation: str
    version: int
    id: str
    intact: int

    @property
    def text(self) -> str:
        """The event as readers' journals contain it."""
        return f"{self.position} {self.tenant} {self.conversation} {self.version} {self.id} {self.intact}"


class Records:
    """The SQLite database of the log and of the appends. One thread after another may use it."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(query("tools.checker", "tables"))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def add_log(self, events: Iterable[ReadEvent]) -> None:
        """Add events of the log."""
        self.add(
            "log", 6, ((e.position, e.tenant, e.conversation.hex, e.version, e.id.hex, int(e.intact)) for e in events)
        )

    def add(self, table: str, columns: int, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows to a table."""
        marks = ", ".join("?" * columns)
        self._database.execute("BEGIN")
        self._database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        self._database.execute("COMMIT")

    def create_indexes(self) -> None:
        """Create the indexes, once all rows are there."""
        self._database.executescript(query("tools.checker", "indexes"))

    def rows(self, name: str, **parameters: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a named query."""
        cursor = self._database.execute(query("tools.checker", name), parameters)
        while rows := cursor.fetchmany(_FETCH_ROWS):
            yield from rows

    def value(self, text: str) -> int:
        """Return the number that a query returns."""
        return int(self._database.execute(text).fetchone()[0])

    def log_after(self, after: int, tenant: str | None) -> Iterator[StoredEvent]:
        """Yield the log in order, of one tenant or of all."""
        return (StoredEvent(*row) for row in self.rows("log_after", after=after, tenant=tenant))

    def stored(self, column: str, value: Any) -> list[StoredEvent]:
        """Return the events of the log with this position or id."""
        text = f"SELECT position, tenant, conversation, version, id, intact FROM log WHERE {column} = ? ORDER BY rowid"
        return [StoredEvent(*row) for row in self._database.execute(text, (value,))]

    def append_of(self, event_id: str) -> int | None:
        """Return the number of the append of an event."""
        row = self._database.execute("SELECT append FROM wanted WHERE id = ?", (event_id,)).fetchone()
        return None if row is None else int(row[0])

    def append_lines(self, number: int | None, event_id: str) -> list[Line]:
        """Return what a writer recorded about the append of an event: its first and its deciding line."""
        if number is None:
            return []
        journal, *offsets = self._database.execute(
            "SELECT journal, begun, decided FROM appends WHERE number = ?", (number,)
        ).fetchone()
        notes = []
        with Path(journal).open("rb") as file:
            for offset in sorted(set(offsets)):
                file.seek(offset)
                notes.append(json.loads(file.readline()))
        return _note_lines(_process_of(Path(journal)), notes, event_id)


@dataclass
class _OpenAppend:
    """An append without a known outcome so far."""

    number: int
    begun: int
    decided: int
    note: dict[str, Any]
    is_unknown: bool = False
    is_wrong: bool = False


class AppendLoader:
    """Loads journals of writers into the records, and judges what the lines of an append alone show."""

    def __init__(self, records: Records, findings: Findings) -> None:
        self._records = records
        self._findings = findings
        self._numbers = count(1)
        self._appends: list[tuple[Any, ...]] = []
        self._wanted: list[tuple[Any, ...]] = []

    def load(self, journal: Path) -> None:
        """Load the journal of one incarnation of a writer."""
        undecided: dict[int, _OpenAppend] = {}
        for offset, line in read_lines_with_offsets(journal):
            note = json.loads(line)
            kind = note["k"]
            if kind == "try":
                undecided[note["op"]] = _OpenAppend(next(self._numbers), offset, offset, note)
                continue
            append = undecided[note["op"]]
            if kind == "wrong":
                append.is_wrong = True
            elif kind == "error":
                self._add_violation(Kind.ERROR, journal, append, note)
            elif kind in _OUTCOMES:
                self._decide(journal, undecided, append, note, offset)
        for append in undecided.values():
            self._add(journal, append, Outcome.UNKNOWN, None)
        self._flush()

    def _decide(
        self,
        journal: Path,
        undecided: dict[int, _OpenAppend],
        append: _OpenAppend,
        note: dict[str, Any],
        offset: int,
    ) -> None:
        outcome = Outcome(note["k"])
        append.decided = offset
        if outcome is Outcome.UNKNOWN:
            append.is_unknown = True
            return  # a repeat may reveal what happened
        if outcome is Outcome.ACKNOWLEDGED:
            self._check_versions(journal, append, note)
        else:
            if append.is_wrong and append.note["sure"]:
                self._add_violation(Kind.WRONGLY_REFUSED, journal, append, note)
            # An attempt of unknown outcome may have happened, whatever the outcome of a later one.
            outcome = Outcome.UNKNOWN if append.is_unknown else outcome
        del undecided[note["op"]]
        self._add(journal, append, outcome, note)

    def _check_versions(self, journal: Path, append: _OpenAppend, note: dict[str, Any]) -> None:
        """Check that the versions match the expected ones and are consecutive."""
        versions = iter([version for _, version in note.get("places", ())])
        for _, _, expected, ids in append.note["writes"]:
            got = [version for _, version in zip(ids, versions, strict=False)]
            first = got[0] if got else 0
            fits = {"ANY": True, "EXISTS": first > 1, "NO_STREAM": first == 1}.get(expected, first - 1 == expected)
            if not fits or got != list(range(first, first + len(ids))):
                self._add_violation(Kind.EXPECTATION, journal, append, note)

    def _add_violation(self, kind: Kind, journal: Path, append: _OpenAppend, note: dict[str, Any]) -> None:
        if self._findings.count(kind):
            lines = _note_lines(_process_of(journal), [append.note, note])
            self._findings.keep(kind, f"{lines[-1].who}, {lines[-1].what}", lines)

    def _add(self, journal: Path, append: _OpenAppend, outcome: Outcome, note: dict[str, Any] | None) -> None:
        self._appends.append((append.number, str(journal), append.begun, append.decided, outcome.value))
        places = iter(note.get("places", ()) if note else ())
        for tenant, conversation, _, ids in append.note["writes"]:
            for event_id in ids:
                place = next(places, (None, None))
                self._wanted.append((append.number, tenant, conversation, event_id, *place))
        if len(self._wanted) > _INSERT_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._records.add("appends", 5, self._appends)
        self._records.add("wanted", 6, self._wanted)
        self._appends.clear()
        self._wanted.clear()


@dataclass
class _MissedEvent:
    """An event that a reader skipped so far."""

    event: StoredEvent
    lines: list[Line]
    passed: bool = False


@dataclass
class _Segment:
    """The deliveries from one start of reading to its end."""

    after: int
    expected: Iterator[StoredEvent]
    next: StoredEvent | None = None
    previous: tuple[float, str] | None = None
    """Time and text of the previous delivery."""
    missed: dict[int, _MissedEvent] = field(default_factory=dict)
    ended: bool = False


class ReaderVerification:
    """Compares the journals of one reader, through all its incarnations, with the log."""

    def __init__(self, records: Records, findings: Findings, name: str) -> None:
        self._records = records
        self._findings = findings
        self._name = name
        self._tenant: str | None = None
        self._has_checkpoint = False
        self._time = 0.0
        self._reached = 0
        self._passed: set[int] = set()
        self._segment = _Segment(0, iter(()))
        self._handlers = {
            "kind": self._on_kind,
            "@": self._on_time,
            "start": self._on_start,
            "+": self._on_delivery,
            "check": self._on_checkpoint,
            "error": self._on_error,
            "end": self._on_end,
        }

    def read(self, journals: Sequence[Path]) -> None:
        """Read the journals, the earliest first."""
        self._findings.reading.readers += 1
        for journal in journals:
            self._findings.reading.incarnations += 1
            for line in read_lines(journal):
                word, _, rest = line.partition(" ")
                self._handlers[word](rest)
            self._end_segment()
        if not self._segment.ended:
            self._add_stuck()

    def _on_kind(self, rest: str) -> None:
        kind, _, tenant = rest.partition(" ")
        self._has_checkpoint = kind in KINDS_WITH_CHECKPOINT
        self._tenant = tenant or None

    def _on_time(self, rest: str) -> None:
        self._time = float(rest)

    def _on_start(self, rest: str) -> None:
        self._end_segment()
        after = int(rest)
        if self._has_checkpoint:
            self._check_checkpoint(after, f"begins again after its checkpoint {after}")
        expected = self._records.log_after(after, self._tenant)
        self._segment = _Segment(after, expected, next(expected, None))

    def _on_delivery(self, rest: str) -> None:
        self._findings.reading.deliveries += 1
        segment = self._segment
        if segment.next is not None and segment.next.text == rest:  # nearly always
            position = segment.next.position
            segment.next = next(segment.expected, None)
        else:
            position = int(rest[: rest.index(" ")])
            self._on_unexpected_delivery(position, rest)
        self._reached = max(self._reached, position)
        segment.previous = (self._time, rest)

    def _on_unexpected_delivery(self, position: int, rest: str) -> None:
        segment = self._segment
        line = Line(self._time, self._name, f"sees {_delivery_text(rest)}")
        while segment.next is not None and segment.next.position < position:
            self._miss(segment.next, line)
            segment.next = next(segment.expected, None)
        if segment.next is not None and segment.next.position == position:
            if segment.next.text != rest:
                self._add(Kind.MISREAD, segment.next, [line, _log_line(segment.next)])
            segment.next = next(segment.expected, None)
            return
        found = next((e for e in self._records.stored("position", position) if e.id == rest.split(" ")[4]), None)
        if found is None:
            lines = [line, Line(None, "log", f"has no such event at {position}")]
            self._findings.add(Kind.INVENTED, f"{self._name} saw {_delivery_text(rest)}", lines)
        else:
            kind = Kind.REPEATED if segment.missed.pop(position, None) is None else Kind.DISORDER
            self._add(kind, found, [*self._previous_line(), line])

    def _miss(self, stored: StoredEvent, line: Line) -> None:
        segment = self._segment
        if len(segment.missed) >= _MAX_MISSED:
            self._findings.count(Kind.MISSED)
            return
        segment.missed[stored.position] = _MissedEvent(stored, [*self._previous_line(), line])

    def _on_checkpoint(self, rest: str) -> None:
        self._findings.reading.checkpoints += 1
        self._check_checkpoint(int(rest), f"moves its checkpoint to {rest}")

    def _check_checkpoint(self, position: int, what: str) -> None:
        """Check that no event up to a checkpoint is unseen."""
        line = Line(self._time, self._name, what)
        for missed in self._segment.missed.values():
            if not missed.passed and missed.event.position <= position:
                missed.passed = True
                missed.lines.append(line)
        if position > self._reached:
            for stored in self._records.log_after(self._reached, self._tenant):
                if stored.position > position:
                    break
                self._add(Kind.PASSED, stored, [*self._previous_line(), line])
                if len(self._passed) < _MAX_MISSED:
                    self._passed.add(stored.position)
            self._reached = position

    def _on_error(self, rest: str) -> None:
        line = Line(self._time, self._name, f"raises {rest}")
        self._findings.add(Kind.ERROR, f"{self._name} raises {rest}", [line])

    def _on_end(self, _: str) -> None:
        segment = self._segment
        segment.ended = True
        line = Line(self._time, self._name, "has come to the end")
        while segment.next is not None:
            self._miss(segment.next, line)
            segment.next = next(segment.expected, None)

    def _end_segment(self) -> None:
        """Report the events that never came in a segment."""
        for missed in self._segment.missed.values():
            # If a checkpoint passed the event before anything later was seen, it is reported already.
            if missed.event.position not in self._passed:
                self._add(Kind.PASSED if missed.passed else Kind.MISSED, missed.event, missed.lines)
        self._segment.missed.clear()

    def _add_stuck(self) -> None:
        lines = self._previous_line()
        if (unseen := self._segment.next) is not None:
            lines += self._records.append_lines(self._records.append_of(unseen.id), unseen.id)
            lines.append(_log_line(unseen))
        self._findings.add(Kind.STUCK, f"{self._name} stopped after position {self._reached}", lines)

    def _add(self, kind: Kind, stored: StoredEvent, lines: list[Line]) -> None:
        if self._findings.count(kind):
            written = self._records.append_lines(self._records.append_of(stored.id), stored.id)
            self._findings.keep(kind, f"{self._name}: {_event_text(stored)}", [*written, *lines])

    def _previous_line(self) -> list[Line]:
        if self._segment.previous is None:
            return []
        time, text = self._segment.previous
        return [Line(time, self._name, f"sees {_delivery_text(text)}")]


def _describe_violation(records: Records, number: int | None, ids: list[str | None]) -> tuple[str, list[Line]]:
    """Return the sentence and the lines of a violation of the log."""
    known = [event_id for event_id in ids if event_id is not None]
    lines = records.append_lines(number, known[0])
    for event_id in known:
        found = records.stored("id", event_id)
        lines += map(_log_line, found) if found else [Line(None, "log", f"has no event {_short(event_id)}")]
    return f"event {' and '.join(map(_short, known))}", lines


def _short(identifier: str) -> str:
    """Shorten an id so that it is readable and can still be found in the journals."""
    return identifier[:12]


def _process_of(journal: Path) -> str:
    return journal.name.split(".")[0]


def _note_lines(who: str, notes: list[dict[str, Any]], event_id: str = "") -> list[Line]:
    """Return the line that announced an append, and further lines about it, or about one of its events."""
    announced, *others = notes
    lines = [Line(announced["t"], who, _announcement_text(announced, event_id))]
    return lines + [Line(note["t"], who, _outcome_text(announced, note, event_id)) for note in others]


def _announcement_text(note: dict[str, Any], event_id: str) -> str:
    ids = [(tenant, conversation, id_) for tenant, conversation, _, ids in note["writes"] for id_ in ids]
    tenant, conversation = next(((t, c) for t, c, id_ in ids if id_ == event_id), ids[0][:2])
    others = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    expected = next((e for _, c, e, _ in note["writes"] if c == conversation), None)
    return (
        f"tries append {note['op']}, {note['how']}: event {_short(event_id)}{others}, "
        f"to conversation {_short(conversation)} of {tenant}, expecting {expected}"
    )


def _outcome_text(announced: dict[str, Any], note: dict[str, Any], event_id: str) -> str:
    if note["k"] == "error":
        return f"append {note['op']} raises {note['why']}"
    text = f"append {note['op']} is {note['k']}"
    if "places" in note:
        ids = [id_ for _, _, _, ids in announced["writes"] for id_ in ids]
        places = dict(zip(ids, note["places"], strict=False))
        if event_id in places:
            position, version = places[event_id]
            text += f": event {_short(event_id)} at position {position}, version {version}"
    elif note.get("why"):
        text += f": {note['why']}"
    return text


def _log_line(stored: StoredEvent) -> Line:
    return Line(None, "log", f"{_event_text(stored)}{'' if stored.intact else ', with another content'}")


def _event_text(stored: StoredEvent) -> str:
    return (
        f"position {stored.position}: event {_short(stored.id)}, version {stored.version} of conversation "
        f"{_short(stored.conversation)} of {stored.tenant}"
    )


def _delivery_text(text: str) -> str:
    position, tenant, conversation, version, event_id, intact = text.split(" ")
    return _event_text(StoredEvent(int(position), tenant, conversation, int(version), event_id, int(intact)))
