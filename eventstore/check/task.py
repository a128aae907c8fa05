"""What a process of the check is told to do, as the checker sends it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """The work of one process.

    Attributes:
        role: ``writer`` or ``reader``.
        name: of the process.
        incarnation: 1, and one more after each restart.
        adapter: ``module:Class`` of the store or the reader.
        folder: of the journals.
        seed: of the random choices.
        hot: ids of the conversations that all writers share.
        last: id of the event that ends the check, in the last of the tenants.
        kind: of the reader, see :mod:`eventstore.check.reader`.
        highest: a position that was seen already.
        prepared: what the names of prepared transactions begin with; empty where the server allows none.
    """

    role: str
    name: str
    incarnation: int
    url: str
    schema: str
    adapter: str
    folder: str
    seed: str
    tenants: list[str]
    hot: list[str]
    last: str
    kind: str = ""
    highest: int = 0
    prepared: str = ""

    @property
    def journal(self) -> Path:
        """Each incarnation has a journal of its own, so that none goes on behind a line that was cut off."""
        return Path(self.folder) / f"{self.name}.{self.incarnation:04d}.journal"

    @property
    def checkpoint(self) -> Path:
        """Where a reader keeps its position."""
        return Path(self.folder) / f"{self.name}.checkpoint"
