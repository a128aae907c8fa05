"""The comparison: appends with the log, the log with itself, readers with the log."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from eventstore.check.operations import Fate
from eventstore.check.verify.appends import AppendLoader
from eventstore.check.verify.findings import Findings, Kind, Line
from eventstore.check.verify.history import append_lines, log_line, name_of, short
from eventstore.check.verify.readers import ReaderCheck
from eventstore.check.verify.records import Records

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
    """Compares the journals of a folder with the log that the records hold already.

    Args:
        progress: told what is being compared.
    """
    findings = Findings()
    loader = AppendLoader(records, findings)
    for journal in sorted(folder.glob("*.journal")):
        if name_of(journal).startswith(("writer", "checker")):
            progress(f"loading {journal.name}")
            loader.load(journal)
    progress("sorting")
    records.make_indexes()
    for kind, name in _QUERIES.items():
        progress(kind.value)
        for number, *ids in records.rows(name):
            if findings.wants(kind):
                findings.keep(kind, *_shown(records, kind, number, ids))
    readers = [path for path in sorted(folder.glob("*.journal")) if name_of(path).startswith("reader")]
    for name, journals in groupby(readers, name_of):
        progress(f"comparing what {name} saw")
        ReaderCheck(records, findings, name).read(list(journals))
    _count(records, findings)
    return findings


def _shown(records: Records, kind: Kind, number: int | None, ids: list[str | None]) -> tuple[str, list[Line]]:
    """The sentence and the lines of a violation of the log."""
    known = [event_id for event_id in ids if event_id is not None]
    lines = append_lines(records, number, known[0])
    for event_id in known:
        found = records.stored("id", event_id)
        lines += map(log_line, found) if found else [Line(None, "log", f"has no event {short(event_id)}")]
    return f"event {' and '.join(map(short, known))}", lines


def _count(records: Records, findings: Findings) -> None:
    findings.events = records.value("SELECT count(*) FROM log")
    findings.conversations = records.value("SELECT count(*) FROM (SELECT DISTINCT tenant, conversation FROM log)")
    appends = findings.appends
    for fate, is_found, number in records.rows("fates"):
        name = fate if fate != Fate.UNKNOWN else "unknown_and_found" if is_found else "unknown_and_absent"
        setattr(appends, name, getattr(appends, name) + number)
