"""Projections: functions from the log to read tables, versioned by the hash of their definition."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Literal

from eventstore.database.connection import Connection
from eventstore.database.queries import named
from eventstore.errors import NotFound

PARTITIONS = 16
"""Number of parts that the conversations are divided into (``partition_of``), each with checkpoints of its own."""
ALL_PARTITIONS = tuple(range(PARTITIONS))

Stage = Literal["live", "next", "previous"]
"""Read tables in use, those that a rebuild fills, and those that the last rebuild has replaced."""


class UnprocessableEvent(Exception):
    """An exception of a projection in Python, other than one of the database."""


@dataclass(frozen=True)
class Projection:
    """A projection from the log to read tables.

    Attributes:
        name: its name.
        tables: the read tables that it alone writes.
        text: statements that read the relation ``batch`` and write unqualified table names; None if the projection is
            written in Python.
        setup: statements that create its tables, unless the migrations do.
        is_low_priority: whether a worker applies it on a connection of its own, so that no other waits for it.
        is_awaited: whether a worker applies it before the others, because callers wait for its rows.
        largest_batch: events that a batch should have at most.
        stored_hash: the hash of another definition than this version's, stored until its tables are rebuilt.
    """

    name: str
    tables: tuple[str, ...]
    text: str | None
    setup: str = ""
    is_low_priority: bool = False
    is_awaited: bool = False
    largest_batch: int = 100_000
    stored_hash: str = ""

    @cached_property
    def definition_hash(self) -> str:
        """SHA-256 of the definition, in hexadecimal."""
        return self.stored_hash or hashlib.sha256((self.text or "").encode()).hexdigest()

    @property
    def is_built_in(self) -> bool:
        """True if it is a projection of this package, unchanged."""
        return self in PROJECTIONS

    @property
    def needs_keys(self) -> bool:
        """True if the tables must have their primary and unique keys before they are filled, as ON CONFLICT demands."""
        return self.text is None or re.search(r"\bon\s+conflict\b", self.text, re.IGNORECASE) is not None

    async def fold(self, connection: Connection) -> None:
        """Apply the events that the relation ``batch`` of the connection shows."""
        await connection.execute(named(self.text or "", f"projection {self.name}").encode())


def _built_in(name: str, *tables: str, is_low_priority: bool = False, is_awaited: bool = False) -> Projection:
    text = files("projections").joinpath(f"{name}.sql").read_text(encoding="utf-8")
    return Projection(name, tables, text, is_low_priority=is_low_priority, is_awaited=is_awaited)


PROJECTIONS: tuple[Projection, ...] = (
    _built_in("conversations", "conversations"),
    _built_in("messages", "messages", is_awaited=True),
    _built_in("tasks", "tasks", "task_artifacts"),
    _built_in("actors", "conversation_actors"),
    _built_in("pending", "pending_messages"),
    _built_in(
        "statistics", "statistics_activity", "statistics_conversations", "statistics_answers", "statistics_tasks",
        "statistics_status_periods", is_low_priority=True,
    ),
    _built_in("search", "search_documents", "search_conversations", is_low_priority=True),
)  # fmt: skip
"""All built-in projections."""


def select_projections(names: Sequence[str], known: Sequence[Projection] = PROJECTIONS) -> tuple[Projection, ...]:
    """Return the projections with these names; all of them if no name is given.

    Raises:
        NotFound: no projection has the name.
    """
    by_name = {projection.name: projection for projection in known}
    for name in names:
        if name not in by_name:
            raise NotFound(f"there is no projection {name!r}: choose among {', '.join(by_name)}")
    return tuple(by_name[name] for name in dict.fromkeys(names)) or tuple(known)
