"""How many examples a test of hypothesis tries: all with ``-m slow``, a fifth in the tests that run by default."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

WHOLE = 30
"""Examples of a test that does not say how many."""
FAST = 6
"""The same in the tests that run by default."""


def examples(whole: int, **more: Any) -> settings:
    """Settings for a test that tries so many examples where there is time."""
    is_whole = settings.get_current_profile_name() == "whole"
    return settings(max_examples=whole if is_whole else max(FAST, whole * FAST // WHOLE), **more)
