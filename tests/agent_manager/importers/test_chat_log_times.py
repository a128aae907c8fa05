"""The time of a message is read from the members that exporters use, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.importers.chat_log import TIME_MEMBERS, find_time
from agent_manager.importers.source import read_time

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
    ],
)
def test_iso_8601_seconds_and_milliseconds_are_read(written: object) -> None:
    assert read_time(written) == MOMENT


@pytest.mark.parametrize(
    "written",
    [None, True, "", "yesterday", "15:00", {"seconds": 1}, [1], 1e300, float("inf"), 10**400, -(10**18),
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


@given(st.one_of(st.text(), st.integers(), st.floats(), st.datetimes().map(str)))
def test_every_value_gives_a_time_in_utc_or_none(written: Any) -> None:
    moment = read_time(written)
    assert moment is None or moment.utcoffset() == MOMENT.utcoffset()
