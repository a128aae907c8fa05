"""The time of a message is read from the members that exporters use, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.importers.chat_log import TIME_MEMBERS, find_time, read_time

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
def test_reads_iso_8601_seconds_and_milliseconds(written: object) -> None:
    assert read_time(written) == MOMENT


@pytest.mark.parametrize(
    "written",
    [None, True, "", "yesterday", "15:00", {"seconds": 1}, [1], 1e300, float("inf"), 10**400, -(10**18),
     "0001-01-01T00:00+23:00"],
)  # fmt: skip
def test_ignores_what_it_cannot_read(written: object) -> None:
    assert read_time(written) is None


def test_reads_times_before_1970() -> None:
    assert read_time(-1) == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("member", TIME_MEMBERS)
def test_knows_the_members_of_exporters(member: str) -> None:
    assert find_time({"role": "user", member: 1715785200}) == MOMENT


def test_takes_the_first_member_that_can_be_read() -> None:
    assert find_time({"time": 0, "created_at": 1715785200, "timestamp": "soon"}) == MOMENT
    assert find_time({"timestamp": "soon"}) is None


@given(st.one_of(st.text(), st.integers(), st.floats(), st.datetimes().map(str)))
def test_never_fails_and_always_answers_in_utc(written: Any) -> None:
    moment = read_time(written)
    assert moment is None or moment.utcoffset() == MOMENT.utcoffset()
