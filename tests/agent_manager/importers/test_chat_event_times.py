"""The time of a message is read from the members that exporters use, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.importers import import_files
from agent_manager.importers.chat_events import TIME_MEMBERS, find_time
from agent_manager.importers.source import read_time
from eventstore import EventStore

MOMENT = datetime(2024, 5, 15, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    [
        "2024-05-15T15:00:00Z",
        "2024-05-15T15:00:00+00:00",
        "2024-05-15T10:00:00-05:00",
        "2024-05-15 15:00:00",
        "2024-05-15T15:00",
        " 2024-05-15T15:00:00.000Z\n",
        1715785200,
        1715785200.0,
        1715785200000,
        1715785200000000,
        1715785200000000000,
        "1715785200",
        "1715785200.0",
        "1715785200000",
        "Wed, 15 May 2024 15:00:00 GMT",
        "15 May 2024 10:00:00 -0500",
        "2024-05-15T14:59:60Z",
    ],
)
def test_times_are_read_in_the_formats_of_exporters(written: object) -> None:
    assert read_time(written) == MOMENT


@pytest.mark.parametrize(
    "written",
    [None, True, "", "yesterday", "15:00", {"seconds": 1}, [1], 1e300, float("inf"), float("nan"), 10**400, "9" * 40,
     "0001-01-01T00:00+23:00"],
)  # fmt: skip
def test_unreadable_values_are_ignored(written: object) -> None:
    assert read_time(written) is None


def test_times_before_1970_are_read() -> None:
    assert read_time(-1) == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("member", TIME_MEMBERS)
def test_the_members_of_exporters_are_known(member: str) -> None:
    assert find_time({"role": "user", member: 1715785200}) == MOMENT


def test_the_first_readable_member_counts() -> None:
    assert find_time({"time": 0, "created_at": 1715785200, "timestamp": "soon"}) == MOMENT
    assert find_time({"timestamp": "soon"}) is None


async def test_times_that_cannot_be_read_are_reported_by_line(store: EventStore, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(
        '{"id": "a", "messages": [{"role": "user", "content": "x", "created_at": "yesterday"}]}\n'
        '{"id": "b", "timestamp": "1736442131", "messages": [{"role": "user", "content": "y", "time": ""}]}\n'
    )
    report = await import_files(store, [file])
    assert (report.problems, report.conversations) == ([], 2)
    [unread] = report.unread_times
    assert str(unread) == f"{file}:1: messages[0].created_at: 'yesterday' is not a time; the time of the import is used"


@given(st.one_of(st.text(), st.integers(), st.floats(), st.datetimes().map(str)))
def test_every_value_gives_a_time_in_utc_or_none(written: Any) -> None:
    moment = read_time(written)
    assert moment is None or moment.utcoffset() == MOMENT.utcoffset()
