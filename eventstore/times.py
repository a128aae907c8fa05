"""Times, days and time zones as people write them, read the same way in Python, over HTTP and on the command line.

A time without an offset is in UTC. An offset is negative west of Greenwich, as in ISO 8601. A name of a time zone means
what it means in the IANA database: ``Etc/GMT+3`` is west of Greenwich, ``EST5EDT`` has daylight-saving time. Other
texts that POSIX or PostgreSQL would take are refused: the signs of ``UTC-3`` and ``BRT3`` mean the opposite of what
they seem to, and an abbreviation such as ``IST`` is the time of several countries.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from eventstore.errors import InputError, printable

_OFFSET = re.compile(r"([+-])([01]\d|2[0-3])(?::?([0-5]\d))?")


def parse_time(text: str, name: str = "time") -> datetime:
    """Return the time that a text in ISO 8601 means: a date or a date and a time, with an offset or in UTC.

    Args:
        name: of the option or parameter, for the error.

    Raises:
        InputError: it is not a time.
    """
    try:
        time = datetime.fromisoformat(text.strip().upper())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(
            f"{name}: {printable(repr(text))} is not a time: write it as 2026-01-31 or 2026-01-31T09:30:00, both in "
            "UTC, or with an offset, as 2026-01-31T09:30:00-03:00"
        ) from None


def parse_day(text: str, name: str = "day") -> date:
    """Return the day that a text in ISO 8601 means.

    Raises:
        InputError: it is not a day.
    """
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise InputError(f"{name}: {printable(repr(text))} is not a day: write it as 2026-01-31") from None


def parse_zone(text: str, name: str = "zone") -> tzinfo:
    """Return the time zone of a name of the IANA database, or of an offset such as ``-03:00``.

    Raises:
        InputError: it is neither.
    """
    if text.upper() == "UTC":
        return UTC
    if (offset := _OFFSET.fullmatch(text)) is not None:
        sign, hours, minutes = offset.groups("00")
        distance = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-distance if sign == "-" else distance)
    known = {zone.lower(): zone for zone in available_timezones()}
    if text.lower() in known:
        return ZoneInfo(known[text.lower()])
    raise InputError(
        f"{name}: {printable(repr(text))} is not a time zone: give a name of the IANA database such as "
        "America/Sao_Paulo, or an offset such as -03:00, negative west of Greenwich"
        + ("" if known else " (this system has no time zones: pip install tzdata)")
    )
