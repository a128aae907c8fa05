"""How often a consumer that follows a stream may look: at once after a rest, ever less often while it goes on and on.

Waking somebody costs the appends (``NOTIFY``, and the machine's time for looking), and costs the same however many
events are found. A consumer at rest is woken by each append. In a stream it takes what has come, some times a second.
"""

from __future__ import annotations

SHARE = 0.1
"""Of the time that a consumer may spend in rounds, in the long run."""
ROUND_SECONDS = 0.001
"""What a round costs, beside the work that the consumer itself reports."""
SAVED_SECONDS = 0.05
"""Spent at most in one go after a rest: fifty rounds that cost no more."""
LONGEST_PAUSE_SECONDS = 0.5


class Pace:
    """A purse of seconds, filled by time and emptied by rounds."""

    def __init__(self, now: float) -> None:
        self._purse = SAVED_SECONDS
        self._counted_at = now

    def spend(self, now: float, seconds: float = ROUND_SECONDS) -> None:
        """Takes what a round has cost."""
        self._count(now)
        self._purse -= seconds

    def pause(self, now: float) -> float:
        """Seconds to wait before the next round; 0 where it may begin at once."""
        self._count(now)
        return min(max(-self._purse / SHARE, 0.0), LONGEST_PAUSE_SECONDS)

    def _count(self, now: float) -> None:
        # Debts beyond the longest pause are forgiven, or one long round would slow down all that follow.
        saved = max(self._purse, -LONGEST_PAUSE_SECONDS * SHARE) + (now - self._counted_at) * SHARE
        self._purse = min(saved, SAVED_SECONDS)
        self._counted_at = now
