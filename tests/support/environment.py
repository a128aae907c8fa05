"""Keeps the caller's own server and settings out of the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
"""Root of the source tree."""


def clear_settings(patch: pytest.MonkeyPatch) -> None:
    """Removes every variable that the settings read; those that steer the tests begin with other words."""
    for name in list(os.environ):
        if name.startswith(("EVENTSTORE_", "POSTGRES_")) and not name.startswith("EVENTSTORE_TEST_"):
            patch.delenv(name)
    for name in ("DATABASE_URL", "DATABASE_URL_FILE"):
        patch.delenv(name, raising=False)


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a Python process that imports the source tree and these helpers."""
    path = os.pathsep.join((str(TREE), str(TREE / "tests")))
    return {**os.environ, "PYTHONPATH": path, **more}
