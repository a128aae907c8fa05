"""Times, days and zones as people write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from eventstore.errors import InputError
from eventstore.times import parse_day, parse_time, parse_zone

JULY, JANUARY = datetime(2026, 7, 15, 12, tzinfo=UTC), datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-01-31", 0), ("20260131", 0), ("2026-01-31T09:00", 9), ("2026-01-31 09:00:00", 9), (" 2026-01-31T09 ", 9),
        ("2026-01-31T09:00:00Z", 9), ("2026-01-31t09:00:00z", 9), ("2026-01-31T09:00:00+00:00", 9),
        ("2026-01-31T09:00:00.000-03:00", 12), ("2026-01-31T09:00:00-0300", 12), ("2026-01-31T09:00:00-03", 12),
        ("2026-01-31T14:30:00+05:30", 9),
    ],
)  # fmt: skip
def test_a_time_without_an_offset_is_in_utc(monkeypatch: pytest.MonkeyPatch, text: str, hour: int) -> None:
    monkeypatch.setenv("TZ", "America/Sao_Paulo")
    time = parse_time(text)
    assert (time, time.utcoffset()) == (datetime(2026, 1, 31, hour, tzinfo=UTC), timedelta(0))


@pytest.mark.parametrize(
    "text",
    ["", " ", "yesterday", "2026", "2026-02-30", "31/01/2026", "1769850000", "2026-01-31T25:00",
     "0001-01-01T00:00+05:00", "9999-12-31T23:59-05:00", "2026-01-31T09:00 03:00",
     "2026-01-31T09:00 America/Sao_Paulo", "\x1b[31m"],
)  # fmt: skip
def test_what_is_not_a_time_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InputError, match=r"^--since: '.*' is not a time: write it as 2026-01-31 or") as refused:
        parse_time(text, "--since")
    assert "\x1b" not in str(refused.value)


def test_a_day_has_no_time() -> None:
    assert parse_day(" 2026-01-31 ") == date(2026, 1, 31)
    for text in ("2026-01-31T09:00", "2026-01-32", "today", "", "1769850000"):
        with pytest.raises(InputError, match=r"^until: '.*' is not a day: write it as 2026-01-31$"):
            parse_day(text, "until")


@pytest.mark.parametrize(
    ("text", "july", "january"),
    [
        ("UTC", 0, 0), ("utc", 0, 0), ("-03:00", -3, -3), ("+03:00", 3, 3), ("-0330", -3.5, -3.5), ("+14", 14, 14),
        ("America/Sao_Paulo", -3, -3), ("america/sao_paulo", -3, -3), ("Europe/Lisbon", 1, 0),
        ("Asia/Kathmandu", 5.75, 5.75), ("Etc/GMT+3", -3, -3), ("Etc/GMT-3", 3, 3), ("GMT", 0, 0), ("GMT+0", 0, 0),
        ("EST5EDT", -4, -5), ("EST", -5, -5), ("CET", 2, 1), ("WET", 1, 0),
    ],
)  # fmt: skip
def test_a_zone_has_the_offsets_of_its_name(text: str, july: float, january: float) -> None:
    zone = parse_zone(text)
    assert [time.astimezone(zone).utcoffset() for time in (JULY, JANUARY)] == [
        timedelta(hours=july), timedelta(hours=january)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "Mars/Phobos", "UTC-3", "UTC+3", "GMT-3", "BRT3", "BRT", "IST", "PST", "<-03>3", "EST5", "-3", "03:00",
     "+24:00", "-03:60", "America/Sao_Paulo3", "America", "../etc/passwd", "/etc/localtime", "a" * 5000, "\x1b[31m"],
)  # fmt: skip
def test_what_is_not_a_zone_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^zone: '.*' is not a time zone: give a name of the IANA database such as"):
        parse_zone(text)
