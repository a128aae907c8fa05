"""How much is measured: the full figures, or a trial that shows that everything runs."""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_RUNS = 5


@dataclass(frozen=True)
class Scale:
    """How often, how long and on how much.

    Attributes:
        runs: how many ratios a figure is the median of.
        seconds: that each side of a throughput is measured in a run.
        slices: parts of a run, in which the sides take turns: what else the machine does then hits all of them.
        callers: numbers of concurrent callers.
        events: length of the long log.
        long_conversation: length of the long conversation.
        rounds: wake-ups or reads of a slice.
        rows: of the log whose reading and size are measured.
    """

    runs: int = FEWEST_RUNS
    seconds: float = 2.0
    slices: int = 4
    callers: tuple[int, ...] = (1, 16, 64, 256)
    events: int = 1_000_000
    short_log: int = 10_000
    long_conversation: int = 100_000
    rounds: int = 50
    rows: int = 50_000
    quick: bool = False


TRIAL = Scale(
    runs=1, seconds=0.1, slices=1, callers=(1, 16, 20), events=1_000, short_log=200, long_conversation=1_000,
    rounds=5, rows=1_000, quick=True,
)  # fmt: skip
"""Enough to see that everything runs; its figures mean nothing."""
