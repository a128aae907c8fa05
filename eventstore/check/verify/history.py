"""Lines of histories, from the journals' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eventstore.check.verify.findings import Line
from eventstore.check.verify.records import Records, Stored


def short(identifier: str) -> str:
    """An id, short enough to be read and long enough to be found in the journals."""
    return identifier[:12]


def name_of(journal: Path) -> str:
    """The process that a journal is from."""
    return journal.name.split(".")[0]


def append_lines(records: Records, number: int | None, event_id: str) -> list[Line]:
    """What a writer said of the append of an event."""
    if number is None:
        return []
    journal, notes = records.journal_of(number)
    return note_lines(name_of(journal), notes, event_id)


def note_lines(who: str, notes: list[dict[str, Any]], event_id: str = "") -> list[Line]:
    """The line that announced an append, and others about it; about one of its events, where one is named."""
    described, *others = notes
    tried = Line(described["t"], who, _tried(described, event_id))
    return [tried, *(Line(note["t"], who, _decided(described, note, event_id)) for note in others)]


def log_line(stored: Stored) -> Line:
    """An event as it stands in the log at the end."""
    return Line(None, "log", f"{event(stored)}{'' if stored.intact else ', with another content'}")


def event(stored: Stored) -> str:
    """An event in words."""
    return (
        f"position {stored.position}: event {short(stored.id)}, version {stored.version} of conversation "
        f"{short(stored.conversation)} of {stored.tenant}"
    )


def delivered(text: str) -> str:
    """A reader's line in words."""
    position, tenant, conversation, version, event_id, intact = text.split(" ")
    return event(Stored(int(position), tenant, conversation, int(version), event_id, int(intact)))


def _tried(note: dict[str, Any], event_id: str) -> str:
    ids = [(tenant, conversation, id_) for tenant, conversation, _, ids in note["writes"] for id_ in ids]
    tenant, conversation = next(((t, c) for t, c, id_ in ids if id_ == event_id), ids[0][:2])
    others = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    expected = next((e for _, c, e, _ in note["writes"] if c == conversation), None)
    return (
        f"tries append {note['op']}, {note['how']}: event {short(event_id)}{others}, "
        f"to conversation {short(conversation)} of {tenant}, expecting {expected}"
    )


def _decided(described: dict[str, Any], note: dict[str, Any], event_id: str) -> str:
    ids = [id_ for _, _, _, ids in described["writes"] for id_ in ids]
    text = f"append {note['op']} is {note['k']}"
    if note["k"] == "error":
        text = f"append {note['op']} raises {note['why']}"
    elif "places" in note:
        places = dict(zip(ids, note["places"], strict=False))
        if event_id in places:
            position, version = places[event_id]
            text += f": event {short(event_id)} at position {position}, version {version}"
    elif note.get("why"):
        text += f": {note['why']}"
    return text
