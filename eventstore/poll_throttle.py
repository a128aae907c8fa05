"""The rate of polling: immediately after an idle time, and less often the longer a stream lasts."""

from __future__ import annotations

POLL_SHARE = 0.1
"""Fraction of the time that a consumer may spend polling, in the long run."""
ROUND_SECONDS = 0.001
"""Cost of a round, if the consumer does not report it."""
SAVED_SECONDS = 0.05
"""The budget after an idle time: fifty rounds of this cost in a row."""
MAX_PAUSE_SECONDS = 0.5


class PollThrottle:
    """A token bucket of seconds, filled by time and emptied by rounds of polling."""

    def __init__(self, now: float) -> None:
        self._saved = SAVED_SECONDS
        self._updated_at = now

    def spend(self, now: float, seconds: float = ROUND_SECONDS) -> None:
        """Deduct the cost of a round."""
        self._refill(now)
        self._saved -= seconds

    def pause(self, now: float) -> float:
        """Return the seconds to wait before the next round; 0 if it may begin now."""
        self._refill(now)
        return min(max(-self._saved / POLL_SHARE, 0.0), MAX_PAUSE_SECONDS)

    def _refill(self, now: float) -> None:
        # A debt of more than the longest pause is forgiven, or one long round would slow down all later ones.
        saved = max(self._saved, -MAX_PAUSE_SECONDS * POLL_SHARE) + (now - self._updated_at) * POLL_SHARE
        self._saved = min(saved, SAVED_SECONDS)
        self._updated_at = now
