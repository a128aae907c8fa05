"""Projections: functions from the log to read tables, versioned by the hash of their text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from eventstore.database.connection import Connection
from eventstore.errors import NotFound

PARTITIONS = 16
"""Number of parts that the conversations are divided into (``partition_of``), each with checkpoints of its own."""


class UnprocessableEvent(Exception):
    """An exception of a projection in Python, other than one of the database."""


@dataclass(frozen=True)
class Projection:
    """A projection in SQL.

    Attributes:
        name: its name.
        tables: the read tables that it alone writes.
        statements: statements that read the relation ``batch`` and write unqualified table names. None stands for the
            text of the file ``<name>.sql`` in this package.
        setup: statements that create its tables, unless the migrations do.
        is_low_priority: whether a worker applies it on a connection of its own, so that no other waits for it.
        is_awaited: whether a worker applies it before the others, because callers wait for its rows.
    """

    name: str
    tables: tuple[str, ...]
    statements: str | None = None
    setup: str = ""
    is_low_priority: bool = False
    is_awaited: bool = False

    @cached_property
    def text(self) -> str | None:
        """The statements; None if the projection is written in Python."""
        if self.statements is not None:
            return self.statements
        return files("projections").joinpath(f"{self.name}.sql").read_text(encoding="utf-8")

    @cached_property
    def source(self) -> str:
        """SHA-256 of the definition, in hexadecimal."""
        return hashlib.sha256((self.text or "").encode()).hexdigest()

    @property
    def is_built_in(self) -> bool:
        """Whether the text is a file of this package."""
        return self.statements is None and self.text is not None

    @property
    def largest_batch(self) -> int:
        """Events that a batch should have at most."""
        return 100_000

    @property
    def needs_keys(self) -> bool:
        """Whether the tables must have their primary and unique keys before they are filled, as ON CONFLICT demands."""
        return re.search(r"\bon\s+conflict\b", self.text or "", re.IGNORECASE) is not None

    async def fold(self, connection: Connection) -> None:
        """Apply the events that the relation ``batch`` of the connection shows."""
        await connection.execute((self.text or "").encode())


@dataclass(frozen=True)
class StoredProjection(Projection):
    """The definition that tables were made by, if it is not the one of this version; stored until they are rebuilt."""

    stored_source: str = ""

    @cached_property
    def source(self) -> str:
        """SHA-256 of the definition, as it is stored."""
        return self.stored_source


PROJECTIONS: tuple[Projection, ...] = (
    Projection("conversations", ("conversations",)),
    Projection("messages", ("messages",), is_awaited=True),
    Projection("tasks", ("tasks", "task_artifacts")),
    Projection("actors", ("conversation_actors",)),
    Projection("pending", ("pending_messages",)),
    Projection(
        "statistics",
        (
            "statistics_activity",
            "statistics_conversations",
            "statistics_answers",
            "statistics_tasks",
            "statistics_status_periods",
        ),
        is_low_priority=True,
    ),
    Projection("search", ("search_documents", "search_conversations"), is_low_priority=True),
)
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
