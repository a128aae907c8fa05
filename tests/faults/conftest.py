"""Fixtures of the fault tests: processes that end with their test."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def kills() -> int:
    """Return how often a worker is killed; ``EVENTSTORE_TEST_KILLS`` says otherwise."""
    return int(os.environ.get("EVENTSTORE_TEST_KILLS", "6"))
