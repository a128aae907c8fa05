"""The number of examples of a test of hypothesis: all with ``-m slow``, a fifth in the tests that run by default."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

WHOLE = 30
"""Examples of a test that does not say how many."""
_SHARE = 5
_FEWEST = 2


def fewer(whole: int) -> int:
    """Return how many examples stand for the whole number where time is short."""
    return max(_FEWEST, whole // _SHARE)


def examples(whole: int, **more: Any) -> settings:
    """Settings for a test that tries so many examples where there is time."""
    return settings(max_examples=whole if settings.get_current_profile_name() == "whole" else fewer(whole), **more)
