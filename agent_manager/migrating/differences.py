"""Two JSON values compared member by member: where they differ, by the path of the place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eventstore.jsontext import equal

MISSING = "(missing)"
"""What a difference says of a side that has nothing in the place."""
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """A place in which two sides do not hold the same.

    Attributes:
        conversation: its id as given; empty where it is no conversation's.
        place: such as ``messages[3].parts[0].text``.
        source, store: what either holds there; long texts are cut.
    """

    conversation: str
    place: str
    source: Any
    store: Any

    def __str__(self) -> str:
        where = f"conversation {self.conversation!r}: " if self.conversation else ""
        return f"{where}{self.place}: {self.source!r} at the source, {self.store!r} in the store"


def differing(conversation: str, place: str, source: Any, store: Any) -> Iterator[Difference]:
    """Every innermost place in which the two values differ."""
    if equal(source, store):
        return
    if isinstance(source, dict) and isinstance(store, dict):
        for name in source.keys() | store.keys():
            inner = f"{place}.{name}" if place else name
            yield from differing(conversation, inner, source.get(name, MISSING), store.get(name, MISSING))
    elif isinstance(source, list) and isinstance(store, list) and len(source) == len(store):
        for index, (one, other) in enumerate(zip(source, store, strict=True)):
            yield from differing(conversation, f"{place}[{index}]", one, other)
    else:
        yield Difference(conversation, place, _short(source), _short(store))


def _short(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = str(value)
    return value if not isinstance(value, str) or len(value) <= _LONGEST else value[:_LONGEST] + "…"
