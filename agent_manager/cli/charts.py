"""Small charts out of characters, and durations in words."""

from __future__ import annotations

import sys

_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_UNITS = (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0))


def bars(values: list[int]) -> list[str]:
    """A bar for each value, the longest for the largest; none for zero, and at least a trace for anything else."""
    most = max(values, default=0)
    return [_bar(value / most) if value else "" for value in values]


def _bar(share: float) -> str:
    if "utf" not in (sys.stdout.encoding or "").lower():
        return "#" * max(1, round(share * _WIDTH))
    full, eighths = divmod(max(1, round(share * _WIDTH * 8)), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def duration(seconds: float | None) -> str:
    """Seconds as people say them, in the largest unit that there is one of; empty for None."""
    if seconds is None:
        return ""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.1 or not seconds else f"{seconds * 1000:.1f} ms"
