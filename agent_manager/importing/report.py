"""What an import tells its caller: how far it is, what it did, and which lines it could not take."""

from __future__ import annotations

from dataclasses import dataclass, field

from eventstore.errors import InputError


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A line that did not go in.

    Attributes:
        file: as it was given, ``-`` for standard input.
        line: from 1.
        reason: what is wrong with it.
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is.

    Attributes:
        bytes_read: of all files together.
        total_bytes: of all files together; None where one of them has no known length, as standard input.
        conversations, messages, tasks: stored so far, by this import or before.
        problems: lines that did not go in so far.
    """

    bytes_read: int
    total_bytes: int | None
    conversations: int
    messages: int
    tasks: int
    problems: int


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        conversations, messages, tasks: in the lines that were understood and are now in the log.
        new_events: added by this import.
        known_events: that the log held already.
        problems: the lines that did not go in, in the order of the files.
        position: the highest position among the events; None where there are none.
    """

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    new_events: int = 0
    known_events: int = 0
    problems: list[ImportProblem] = field(default_factory=list)
    position: int | None = None


class ImportStopped(InputError):
    """A strict import met a line that it could not take. What stood before it is in the log.

    Attributes:
        problem: the line and what is wrong with it.
        report: what the import did until then.
    """

    def __init__(self, problem: ImportProblem, report: ImportReport) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.report = report
