"""Counters of what a server did, such as its responses by status and its rejections by reason."""

from __future__ import annotations

from collections import Counter


class Counters:
    """The counters of one server, by name and labels. They only increase.

    The values of labels are constants in the code, never input of a client. Otherwise clients could create any number
    of counters.
    """

    def __init__(self) -> None:
        self._numbers: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()

    def add(self, name: str, **labels: str) -> None:
        """Increment a counter by one."""
        self._numbers[name, frozenset(labels.items())] += 1

    def number(self, name: str, **labels: str) -> int:
        """Return the sum of the counters that have this name and these labels; they may have further labels."""
        wanted = labels.items()
        return sum(number for (each, given), number in self._numbers.items() if each == name and wanted <= given)
