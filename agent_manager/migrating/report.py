"""What a migration did, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from agent_manager.migrating.backup import Backup
from agent_manager.migrating.source import Problem
from agent_manager.migrating.verifying import Verified

_SHOWN = 20


class Reported(Protocol):
    """What tells in words and as JSON what was found, and whether all is well."""

    @property
    def is_clean(self) -> bool:
        """Whether all is well."""
        ...

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        ...

    def lines(self) -> Iterator[str]:
        """All of it in words."""
        ...


@dataclass(slots=True)
class MigrationReport:
    """What a migration did.

    Attributes:
        backup: of the source.
        new_events: that were appended; none where the store had everything already.
        verified: the store compared with the backup.
        problems: what the source did not give, or the store did not take.
        misdated: messages with times that cannot be right; they went in with them.
    """

    backup: Backup
    new_events: int
    verified: Verified
    problems: list[Problem] = field(default_factory=list)
    misdated: list[Problem] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether everything is there, as it was."""
        return not self.problems and not self.verified.differences

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "clean": self.is_clean,
            "tenant": self.backup.tenant,
            "source": self.backup.source,
            "backup": {"file": str(self.backup.path), "sha256": self.backup.sha256},
            "pending": self.backup.pending,
            "new_events": self.new_events,
            **verified_values(self.verified),
            "problems": [asdict(problem) for problem in self.problems],
            "misdated": [asdict(problem) for problem in self.misdated],
        }

    def lines(self) -> Iterator[str]:
        """All of it in words; of long lists the beginning."""
        yield f"Source      {self.backup.source}, {len(self.backup.agents):,} agent(s)"
        yield f"Backup      {self.backup.path}"
        yield f"Taken over  {self.new_events:,} new events"
        yield from verified_lines(self.verified)
        if self.backup.pending:
            yield f"Pending     {self.backup.pending:,} message(s) were being answered: import again when they are"
        yield from shown("Problem     ", self.problems)
        yield from shown("Time        ", self.misdated)


def verified_values(verified: Verified) -> dict[str, Any]:
    """A comparison as plain values."""
    return {
        "conversations": verified.conversations,
        "messages": verified.messages,
        "tasks": verified.tasks,
        "changed_since": list(verified.changed),
        "deleted_since": sorted(verified.hidden),
        "conversations_that_differ": verified.differing,
        "differences": [asdict(difference) for difference in verified.differences],
    }


def verified_lines(verified: Verified, done: str = "are in the store") -> Iterator[str]:
    """A comparison in words; ``done`` says what all of it does where nothing differs."""
    counts = f"{verified.conversations:,} conversations, {verified.messages:,} messages, {verified.tasks:,} tasks"
    if not verified.differences:
        yield f"Verified    {counts}: all {done} as they were"
    else:
        yield f"DIFFERENT   {len(verified.differing):,} of {counts}"
        yield from shown("            ", verified.differences)
    if verified.changed:
        yield f"Changed     {len(verified.changed):,} conversation(s) by the store's users since: left as they are"
    if verified.hidden:
        yield f"Deleted     {len(verified.hidden):,} conversation(s) by the store's users since: left as they are"


def shown(heading: str, things: list[Any]) -> Iterator[str]:
    """A line each, and how many more there are."""
    for thing in things[:_SHOWN]:
        yield f"{heading}{thing}"
    if len(things) > _SHOWN:
        yield f"{heading}and {len(things) - _SHOWN:,} more: --json shows all"
