"""What writers say of their appends, from their journals into the records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from eventstore.check.operations import Fate
from eventstore.check.verify.findings import Findings, Kind, Line
from eventstore.check.verify.history import name_of, note_lines
from eventstore.check.verify.records import Records

_ROWS = 5000
_FATES = frozenset(fate.value for fate in Fate)


@dataclass
class _Open:
    """An append whose outcome is not told yet, or is unknown so far."""

    number: int
    begun: int
    decided: int
    note: dict[str, Any]
    is_unknown: bool = False
    is_wrong: bool = False


class AppendLoader:
    """Loads journals of writers, and judges what an append's own lines show."""

    def __init__(self, records: Records, findings: Findings) -> None:
        self._records = records
        self._findings = findings
        self._numbers = count(1)
        self._appends: list[tuple[Any, ...]] = []
        self._wanted: list[tuple[Any, ...]] = []

    def load(self, journal: Path) -> None:
        """Loads the journal of one incarnation of a writer."""
        undecided: dict[int, _Open] = {}
        for offset, note in _notes(journal):
            kind = note["k"]
            if kind == "try":
                undecided[note["op"]] = _Open(next(self._numbers), offset, offset, note)
                continue
            append = undecided[note["op"]]
            if kind == "wrong":
                append.is_wrong = True
            elif kind == "error":
                self._object(Kind.ERROR, journal, append, note)
            elif kind in _FATES:
                self._decide(journal, undecided, append, note, offset)
        for append in undecided.values():
            self._add(journal, append, Fate.UNKNOWN, None)
        self._flush()

    def _decide(
        self, journal: Path, undecided: dict[int, _Open], append: _Open, note: dict[str, Any], offset: int
    ) -> None:
        fate = Fate(note["k"])
        append.decided = offset
        if fate is Fate.UNKNOWN:
            append.is_unknown = True
            return  # it may be repeated, and what happened become known
        if fate is Fate.ACKNOWLEDGED:
            self._look_at(journal, append, note)
        else:
            if append.is_wrong and append.note["sure"]:
                self._object(Kind.WRONGLY_REFUSED, journal, append, note)
            # An attempt whose outcome is unknown may have happened, whatever became of a later one.
            fate = Fate.UNKNOWN if append.is_unknown else fate
        del undecided[note["op"]]
        self._add(journal, append, fate, note)

    def _look_at(self, journal: Path, append: _Open, note: dict[str, Any]) -> None:
        """Whether the versions fit what was expected and follow each other."""
        versions = iter([version for _, version in note.get("places", ())])
        for _, _, expected, ids in append.note["writes"]:
            got = [version for _, version in zip(ids, versions, strict=False)]
            first = got[0] if got else 0
            fits = {"ANY": True, "EXISTS": first > 1, "NO_STREAM": first == 1}.get(expected, first - 1 == expected)
            if not fits or got != list(range(first, first + len(ids))):
                self._object(Kind.EXPECTATION, journal, append, note)

    def _object(self, kind: Kind, journal: Path, append: _Open, note: dict[str, Any]) -> None:
        if self._findings.wants(kind):
            lines = note_lines(name_of(journal), [append.note, note])
            self._findings.keep(kind, f"{lines[-1].who}, {lines[-1].what}", lines)

    def _add(self, journal: Path, append: _Open, fate: Fate, note: dict[str, Any] | None) -> None:
        self._appends.append((append.number, str(journal), append.begun, append.decided, fate.value))
        places = iter(note.get("places", ()) if note else ())
        for tenant, conversation, _, ids in append.note["writes"]:
            for event_id in ids:
                place = next(places, (None, None))
                self._wanted.append((append.number, tenant, conversation, event_id, *place))
        if len(self._wanted) > _ROWS:
            self._flush()

    def _flush(self) -> None:
        self._records.add("appends", 5, self._appends)
        self._records.add("wanted", 6, self._wanted)
        self._appends.clear()
        self._wanted.clear()


def unsettled(journal: Path) -> list[Line]:
    """The appends under way when a journal ends: announced or repeated, and no outcome told since."""
    announced: dict[int, dict[str, Any]] = {}
    under_way: set[int] = set()
    for _, note in _notes(journal):
        if note["k"] == "try":
            announced[note["op"]] = note
        if note["k"] in ("try", "again"):
            under_way.add(note["op"])
        elif note["k"] in _FATES:
            under_way.discard(note["op"])
    return [line for op in sorted(under_way) for line in note_lines(name_of(journal), [announced[op]])]


def _notes(journal: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line with its offset; one that its writer did not live to end is left out."""
    offset = 0
    with journal.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield offset, json.loads(line)
            offset += len(line)
