"""What a check is told: how long, how many, which faults, which store and reader."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from eventstore.errors import InputError

STORE = "eventstore.check.ours:Log"
READER = "eventstore.check.ours:Gated"


class Fault(StrEnum):
    """A fault that the checker injects at random times."""

    KILL_WRITER = "kill-writer"
    """SIGKILL to a process of writers."""
    KILL_READER = "kill-reader"
    """SIGKILL to a process that reads."""
    TERMINATE = "terminate"
    """``pg_terminate_backend`` of one of the check's own sessions."""
    CUT = "cut"
    """A connection is closed under both its ends."""
    HALF_OPEN = "half-open"
    """A connection stays open, and what the server answers is swallowed for a while."""
    FOREIGN = "foreign"
    """A transaction of somebody else's, with a transaction id and advisory locks, stays open."""
    KILL_SERVER = "kill-server"
    """SIGKILL to the server, which then recovers."""


@dataclass(frozen=True)
class CheckSettings:
    """How to check.

    Attributes:
        seconds: how long writers write and faults happen; reading to the end and comparing come on top.
        writers: processes that append, each with several coroutines.
        readers: processes that read; their kinds take turns.
        faults: which to inject; None means all that are possible.
        seed: of the random choices. Processes still race, so that no two runs are the same.
        store, reader: ``module:Class``, see :mod:`eventstore.check.adapter`.
        restart_command: run by the shell to kill a named server and start it again.
        folder: where the journals and the embedded server's data go; None for a temporary one, removed at the end.
        keep: keep the schema, and the temporary folder too.
        patience: seconds that writers have to end when told to, and that readers may stand still before the log's end.

    Raises:
        InputError: a number that makes no sense, or an unknown fault.
    """

    seconds: float = 30.0
    writers: int = 3
    readers: int = 5
    faults: frozenset[Fault] | None = None
    seed: int = field(default_factory=lambda: secrets.randbelow(1_000_000))
    store: str = STORE
    reader: str = READER
    restart_command: str | None = None
    folder: Path | None = None
    keep: bool = False
    patience: float = 60.0

    def __post_init__(self) -> None:
        for name, lowest in (("seconds", 0.1), ("writers", 1), ("readers", 1), ("patience", 0.1)):
            if not getattr(self, name) >= lowest:
                raise InputError(f"{name}: {getattr(self, name)} is too little: give at least {lowest}")
        if self.folder is not None and self.folder.exists() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder} is not empty: name a folder that is empty or that can be made")


def parse_faults(names: Iterable[str]) -> frozenset[Fault]:
    """Faults by their names.

    Raises:
        InputError: one is unknown.
    """
    try:
        return frozenset(Fault(name) for name in names)
    except ValueError as error:
        raise InputError(f"{error}: choose among {', '.join(Fault)}") from None
