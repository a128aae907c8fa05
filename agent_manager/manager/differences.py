"""What differed between two logs that should hold the same, counted and kept for a report."""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

from eventstore.errors import printable

log = logging.getLogger(__name__)

KEPT = 1000
"""Of the latest differences; all are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference.

    Attributes:
        what: was read or written: ``events``, ``conversations``, ``pending``, ``append`` …
        conversation_id: in the log; None where it is one of a list.
        main: what the side that is read from gave, cut to what can be shown.
        other: what the other side gave, or why it failed.
    """

    what: str
    conversation_id: str | None
    main: str
    other: str


class Differences:
    """Counts of what was compared, and of what of it differed.

    Attributes:
        compared: by what was read or written.
        differing: the same, of those that differed.
        not_compared: reads during which somebody wrote what they read.
        latest: the latest differences, newest last.
    """

    def __init__(self) -> None:
        self.compared: Counter[str] = Counter()
        self.differing: Counter[str] = Counter()
        self.not_compared: Counter[str] = Counter()
        self.latest: deque[Difference] = deque(maxlen=KEPT)

    @property
    def count(self) -> int:
        """How many there were."""
        return self.differing.total()

    def compare(self, what: str, conversation_id: Any, main: Any, other: Any) -> None:
        """Compares what two sides gave."""
        self.compared[what] += 1
        if main != other:
            self.add(what, conversation_id, main, other)

    def add(self, what: str, conversation_id: Any, main: Any, other: Any) -> None:
        """Counts a difference."""
        self.differing[what] += 1
        shown = None if conversation_id is None else str(conversation_id)
        difference = Difference(what, shown, printable(str(main)), printable(str(other)))
        self.latest.append(difference)
        log.warning("%s differ in conversation %s: %s, and %s", what, shown, difference.main, difference.other)

    def report(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {
            "differences": self.count,
            "compared": dict(self.compared),
            "differing": dict(self.differing),
            "not_compared": dict(self.not_compared),
            "latest": [asdict(difference) for difference in self.latest],
        }

    def __str__(self) -> str:
        """In words."""
        lines = [f"{self.compared.total()} compared, {self.count} differed, {self.not_compared.total()} not compared"]
        lines += [
            f"{one.what} of {one.conversation_id or 'all'}: {one.main}; the other side: {one.other}"
            for one in self.latest
        ]
        return "\n".join(lines)
