"""Fixtures of the benchmark's tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def small_heap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what the other tests have left out of the collection before each measurement, which would take a second."""
    unfreeze = gc.unfreeze
    gc.freeze()
    monkeypatch.setattr(gc, "unfreeze", lambda: None)
    yield
    unfreeze()
