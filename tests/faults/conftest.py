"""What the fault tests share: processes that end with their test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import Commands, commands


@pytest.fixture
def started(clean_environment: None, tmp_path: Path) -> Iterator[Commands]:
    """Starts commands; whatever still runs at the end of the test is ended."""
    with commands(tmp_path / "output") as running:
        yield running


@pytest.fixture
def kills() -> int:
    """How often a worker is killed; ``EVENTSTORE_TEST_KILLS`` says otherwise."""
    return int(os.environ.get("EVENTSTORE_TEST_KILLS", "6"))
