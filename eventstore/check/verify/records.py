"""The records of a check on disk: the log, and what writers say of their appends.

They lie in a database of SQLite, so that millions of them can be sorted and joined in little memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from eventstore.check.adapter import Seen

_CACHE_KIB = 64 * 1024
_ROWS = 2000


class Stored(NamedTuple):
    """An event of the log; :attr:`text` is how a reader's journal would tell it."""

    position: int
    tenant: str
    conversation: str
    version: int
    id: str
    intact: int

    @property
    def text(self) -> str:
        """As in the journals of readers."""
        return f"{self.position} {self.tenant} {self.conversation} {self.version} {self.id} {self.intact}"


class Records:
    """The database. It may be used from one thread after another."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_sql("tables"))

    def close(self) -> None:
        """Closes it."""
        self._database.close()

    def add_log(self, events: Iterable[Seen]) -> None:
        """Adds events of the log."""
        self.add(
            "log", 6, ((e.position, e.tenant, e.conversation.hex, e.version, e.id.hex, int(e.intact)) for e in events)
        )

    def add(self, table: str, columns: int, rows: Iterable[tuple[Any, ...]]) -> None:
        """Adds rows to a table."""
        marks = ", ".join("?" * columns)
        self._database.execute("BEGIN")
        self._database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        self._database.execute("COMMIT")

    def make_indexes(self) -> None:
        """Once everything is there."""
        self._database.executescript(_sql("indexes"))

    def rows(self, name: str, **parameters: Any) -> Iterator[tuple[Any, ...]]:
        """What the query of that name returns, a little at a time."""
        cursor = self._database.execute(_sql(name), parameters)
        while rows := cursor.fetchmany(_ROWS):
            yield from rows

    def value(self, query: str) -> int:
        """One number."""
        return int(self._database.execute(query).fetchone()[0])

    def log_after(self, after: int, tenant: str | None) -> Iterator[Stored]:
        """The log in order, of one tenant or of all."""
        return (Stored(*row) for row in self.rows("log_after", after=after, tenant=tenant))

    def stored(self, column: str, value: Any) -> list[Stored]:
        """The events of the log whose position or id is this."""
        query = f"SELECT position, tenant, conversation, version, id, intact FROM log WHERE {column} = ? ORDER BY rowid"
        return [Stored(*row) for row in self._database.execute(query, (value,))]

    def append_of(self, event_id: str) -> int | None:
        """The append that was to store an event."""
        row = self._database.execute("SELECT append FROM wanted WHERE id = ?", (event_id,)).fetchone()
        return None if row is None else int(row[0])

    def journal_of(self, number: int) -> tuple[Path, list[dict[str, Any]]]:
        """The journal of an append, and its first and its deciding line there."""
        journal, *offsets = self._database.execute(
            "SELECT journal, begun, decided FROM appends WHERE number = ?", (number,)
        ).fetchone()
        found = []
        with Path(journal).open("rb") as file:
            for offset in sorted(set(offsets)):
                file.seek(offset)
                found.append(json.loads(file.readline()))
        return Path(journal), found


def _sql(name: str) -> str:
    return files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
