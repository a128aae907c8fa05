"""A figure: the ratio of two sides that were run in turn, with its spread, beside the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio has to reach."""

    value: float
    at_least: bool = True

    def reached(self, ratio: float) -> bool:
        """Whether the ratio is on the right side."""
        return ratio >= self.value if self.at_least else ratio <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:g}"


@dataclass(frozen=True)
class Figure:
    """A comparison's outcome.

    Attributes:
        comparison: the name of the comparison.
        what: the two sides in words, ours first.
        unit: of what each side was measured in.
        ours, other: what was measured, one value a run.
        target: for the median of the ratios; None where there is none.
        remark: what one has to know to read it.
    """

    comparison: str
    what: str
    unit: str
    ours: Sequence[float]
    other: Sequence[float]
    target: Target | None = None
    remark: str = ""
    ratios: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        ratios = tuple(ours / other for ours, other in zip(self.ours, self.other, strict=True))
        object.__setattr__(self, "ratios", ratios)

    @property
    def ratio(self) -> float:
        """Median of the ratios of the runs."""
        return median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        return None if self.target is None else self.target.reached(self.ratio)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "comparison": self.comparison,
            "what": self.what,
            "ratio": self.ratio,
            "lowest": min(self.ratios),
            "highest": max(self.ratios),
            "target": None if self.target is None else str(self.target),
            "reached": self.reached,
            "unit": self.unit,
            "ours": list(self.ours),
            "other": list(self.other),
            "remark": self.remark,
        }
