"""Numbers of what happened, by name and labels, for whatever reads them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]


class Counters:
    """Numbers that only grow, of one server.

    A label is one of few words that are written in the code; nothing that a client sends becomes one, so that nobody
    can make them grow in number.
    """

    def __init__(self) -> None:
        self._numbers: Counter[tuple[str, Labels]] = Counter()

    def add(self, name: str, **labels: str) -> None:
        """One more."""
        self._numbers[name, tuple(sorted(labels.items()))] += 1

    def number(self, name: str, **labels: str) -> int:
        """How many of this name with these labels, whatever other labels they have."""
        wanted = set(labels.items())
        return sum(number for (each, told), number in self._numbers.items() if each == name and wanted <= set(told))

    def __iter__(self) -> Iterator[tuple[str, dict[str, str], int]]:
        """Each name with its labels and its number."""
        return iter([(name, dict(labels), number) for (name, labels), number in self._numbers.items()])
