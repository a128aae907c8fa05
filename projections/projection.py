"""A projection: a function from the log to read tables, one ``.sql`` file, versioned by the hash of its text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import LiteralString

from eventstore.errors import NotFound


@dataclass(frozen=True)
class Projection:
    """One of the projections.

    Attributes:
        name: its name, also that of its file.
        tables: the read tables that it alone writes.
    """

    name: str
    tables: tuple[LiteralString, ...]

    @cached_property
    def text(self) -> LiteralString:
        """The statements: they read the relation ``batch`` and write unqualified table names."""
        return files("projections").joinpath(f"{self.name}.sql").read_text(encoding="utf-8")

    @cached_property
    def source(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


PROJECTIONS = (
    Projection("conversations", ("conversations",)),
    Projection("messages", ("messages",)),
    Projection("tasks", ("tasks", "task_artifacts")),
)
"""All projections, in the order in which a worker applies them."""

SHARES = 16
"""Parts of the conversations that have checkpoints of their own; the function ``share_of`` tells which."""


def named(names: list[str]) -> tuple[Projection, ...]:
    """The projections of these names; all of them for none.

    Raises:
        NotFound: there is no such projection.
    """
    known = {projection.name: projection for projection in PROJECTIONS}
    for name in names:
        if name not in known:
            raise NotFound(f"there is no projection {name!r}: choose among {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names)) or PROJECTIONS
