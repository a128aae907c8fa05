"""Settings of a check, and of each of its processes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from eventstore.errors import InputError

STORE = "tools.checker.eventstore_adapter:EventStoreLog"
READER = "tools.checker.eventstore_adapter:HorizonReader"


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
    """A connection stays open, and the server's replies are dropped for a while."""
    FOREIGN = "foreign"
    """An unrelated transaction, with a transaction id and advisory locks, stays open."""
    KILL_SERVER = "kill-server"
    """SIGKILL to the server, which then recovers."""


@dataclass(frozen=True)
class CheckSettings:
    """Settings of a check.

    Attributes:
        seconds: duration of writes and faults; reading to the end and comparing take additional time.
        writers: number of processes that append, each with several coroutines.
        readers: number of processes that read; the kinds of readers alternate.
        faults: faults to inject; None for all that are possible.
        seed: seed of the random choices. Processes race, so no two runs are the same.
        store, reader: ``module:Class``, see :mod:`tools.checker.adapter`.
        restart_command: shell command that kills a configured server and starts it again.
        folder: folder for journals and the embedded server's data; None for a temporary one.
        keep: keep the schema, and a temporary folder too.
        patience: seconds for writers to end when stopped, and for readers to stand still before the end of the log.

    Raises:
        InputError: a number is too small.
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
    """Return the faults of these names.

    Raises:
        InputError: a name is unknown.
    """
    try:
        return frozenset(Fault(name) for name in names)
    except ValueError as error:
        raise InputError(f"{error}: choose among {', '.join(Fault)}") from None


@dataclass(frozen=True)
class ProcessTask:
    """The task of one process of a check, as the checker sends it.

    Attributes:
        role: ``writer`` or ``reader``.
        name: name of the process.
        incarnation: 1, and one more after each restart.
        adapter: ``module:Class`` of the store or the reader.
        folder: folder of the journals.
        seed: seed of the random choices.
        hot: ids of the conversations that all writers share.
        last: id of the event that ends the check, in the last of the tenants.
        kind: kind of the reader, see :mod:`tools.checker.child`.
        highest: a position that was read before.
        prepared: prefix of the names of prepared transactions; empty if the server allows none.
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
        """The journal of this incarnation: a new one never continues after a truncated line."""
        return Path(self.folder) / f"{self.name}.{self.incarnation:04d}.journal"

    @property
    def checkpoint(self) -> Path:
        """The file in which a reader keeps its position."""
        return Path(self.folder) / f"{self.name}.checkpoint"
