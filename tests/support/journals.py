"""Histories of a check made by hand: right by construction, for tests that break them in one way each."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from tools.checker.adapter import ReadEvent
from tools.checker.report import Findings
from tools.checker.verification import Records, compare

TENANTS = ("check-1", "check-2")
FATES = ("acknowledged", "found", "absent", "refused", "aborted", "repeated")


@dataclass
class Attempt:
    """An append: the notes of its writer, and which of its events are in the log."""

    writer: str
    fate: str
    notes: list[dict[str, Any]]

    @property
    def ids(self) -> list[str]:
        """The ids of the events."""
        return [event_id for write in self.notes[0]["writes"] for event_id in write[3]]

    @property
    def last_note(self) -> dict[str, Any]:
        """The note that decided."""
        return self.notes[-1]


@dataclass
class Reading:
    """A reader: the lines of each of its incarnations."""

    name: str
    tenant: str | None
    incarnations: list[list[str]] = field(default_factory=list)

    def deliveries(self) -> list[tuple[int, int]]:
        """Return the places of the deliveries: incarnation and line."""
        return [
            (number, index)
            for number, lines in enumerate(self.incarnations)
            for index, line in enumerate(lines)
            if line.startswith("+")
        ]


@dataclass
class History:
    """All of it."""

    attempts: list[Attempt]
    log: list[ReadEvent]
    readers: list[Reading]

    def compared(self, folder: Path) -> Findings:
        """Writes the journals into an empty folder, and compares them with the log."""
        for writer in {attempt.writer for attempt in self.attempts}:
            notes = [note for attempt in self.attempts if attempt.writer == writer for note in attempt.notes]
            notes.sort(key=lambda note: note["t"])
            (folder / f"{writer}.0001.journal").write_text("".join(json.dumps(note) + "\n" for note in notes))
        for reader in self.readers:
            for number, lines in enumerate(reader.incarnations, 1):
                text = "".join(line + "\n" for line in lines)
                (folder / f"{reader.name}.{number:04d}.journal").write_text(text)
        records = Records(folder / "records")
        try:
            records.add_log(self.log)
            return compare(records, folder)
        finally:
            records.close()


def journal_line(event: ReadEvent) -> str:
    """A delivery in a reader's journal."""
    return f"+ {event.position} {event.tenant} {event.conversation.hex} {event.version} {event.id.hex} {event.intact:d}"


def correct(chance: random.Random) -> History:
    """A history in which nothing is wrong, with at least two appends of each fate."""
    fates = [*FATES, *FATES, *chance.choices(FATES, k=chance.randint(0, 10))]
    chance.shuffle(fates)
    maker = _Maker(chance)
    attempts = [maker.attempt(fate) for fate in fates]
    attempts.append(maker.attempt("acknowledged", tenant=TENANTS[-1]))
    kinds = (("file", None), ("start", None), ("tenant", TENANTS[-1]), ("table", None), ("recent", None))
    readers = [
        _reading(chance, f"reader-{n}-{kind}", kind, tenant, maker.log) for n, (kind, tenant) in enumerate(kinds, 1)
    ]
    return History(attempts, maker.log, readers)


class _Maker:
    """Makes appends and the log that they amount to."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._conversations = [self._id() for _ in range(3)]
        self._versions: dict[tuple[str, str], int] = {}
        self._time = 1000.0
        self._position = 0
        self._number = 0
        self.log: list[ReadEvent] = []

    def attempt(self, fate: str, tenant: str | None = None) -> Attempt:
        """Return an append of at least two events, to one conversation or two."""
        tenant = tenant or self._chance.choice(TENANTS)
        self._number += 1
        writes = []
        for conversation in self._chance.sample(self._conversations, self._chance.randint(1, 2)):
            version = self._versions.get((tenant, conversation.hex), 0)
            expected = self._chance.choice(("ANY", version or "NO_STREAM", "EXISTS" if version else "ANY"))
            ids = [self._id().hex for _ in range(self._chance.randint(2, 4))]
            writes.append([tenant, conversation.hex, expected, ids])
        notes = [self._note(k="try", how="somehow", sure=True, writes=writes)]
        places = self._store(writes) if fate in ("acknowledged", "found", "repeated") else []
        if fate == "repeated" or (fate in ("found", "absent") and self._chance.random() < 0.7):
            notes.append(self._note(k="unknown", why="the connection broke"))
        if fate == "repeated":
            notes.append(self._note(k="again"))
        if fate in ("acknowledged", "repeated"):
            notes.append(self._note(k="acknowledged", places=places))
        if fate in ("refused", "aborted"):
            notes.append(self._note(k=fate, why="as it should be"))
        return Attempt(self._chance.choice(("writer-1", "writer-2")), fate, notes)

    def _note(self, **values: Any) -> dict[str, Any]:
        self._time += self._chance.uniform(0.001, 0.1)
        return {"t": self._time, "op": self._number, **values}

    def _store(self, writes: list[Any]) -> list[list[int]]:
        places = []
        for tenant, conversation, _, ids in writes:
            for event_id in ids:
                self._position += self._chance.randint(1, 3)
                version = self._versions.get((tenant, conversation), 0) + 1
                self._versions[tenant, conversation] = version
                self.log.append(ReadEvent(self._position, tenant, UUID(conversation), version, UUID(event_id), True))
                places.append([self._position, version])
        return places

    def _id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)


def _reading(chance: random.Random, name: str, kind: str, tenant: str | None, log: list[ReadEvent]) -> Reading:
    """A reader that is killed up to three times, and comes to the end."""
    reading = Reading(name, tenant)
    events = [event for event in log if tenant in (None, event.tenant)]
    checkpoint, time = 0, 2000.0
    for lives_left in range(chance.randint(0, 3), -1, -1):
        if kind == "recent":
            checkpoint = chance.choice(log[:-3]).position
        lines = [f"kind {kind} {tenant or ''}".rstrip(), f"start {checkpoint}"]
        wanted = [event for event in events if event.position > checkpoint]
        for event in wanted[: chance.randint(0, len(wanted))] if lives_left else wanted:
            time += 0.01
            lines += [f"@ {time:.6f}", journal_line(event)]
            if kind in ("file", "table", "tenant") and chance.random() < 0.3:
                checkpoint = event.position
                lines.append(f"check {checkpoint}")
        reading.incarnations.append(lines)
    reading.incarnations[-1].append("end")
    return reading
