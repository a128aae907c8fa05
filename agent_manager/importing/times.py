"""Times in imported data, in UTC: of messages and conversations, with a time zone for those that name none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from eventstore.errors import InputError

TIME_MEMBERS = ("timestamp", "created_at", "created", "create_time", "time")
"""The members that say so; the first that can be read counts."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS = 1e11  # as seconds that is the year 5138


def time_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name.

    Raises:
        InputError: the system knows no zone of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a name that is not known, not a name, or the path of a folder
        raise InputError(
            f"time zone {name!r} is not known: give an IANA name, such as America/Sao_Paulo or UTC "
            "(if the system has no time zones, pip install tzdata)"
        ) from None


def own_time(sent: Mapping[str, Any], zone: tzinfo = UTC) -> datetime | None:
    """Return the time of a message or conversation, None if it has none that can be read.

    ISO 8601, in ``zone`` if it names no offset, or seconds or milliseconds since 1970.
    """
    moments = (read_time(sent[name], zone) for name in TIME_MEMBERS if name in sent)
    return next((moment for moment in moments if moment is not None), None)


def read_time(value: Any, zone: tzinfo = UTC) -> datetime | None:
    """Return the time that a JSON value stands for; a text without an offset is a local time in ``zone``.

    Raises:
        InputError: the clocks of the zone never showed that time.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            return in_zone(moment, zone) if moment.tzinfo is None else moment.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _EPOCH + timedelta(**{"milliseconds" if abs(value) > _MILLISECONDS else "seconds": value})
    except (ValueError, OverflowError):
        pass
    return None


def in_zone(local: datetime, zone: tzinfo, not_before: datetime | None = None) -> datetime:
    """Return a local time in UTC.

    Args:
        local: without an offset. If the clocks of the zone showed it twice, it is the first time, unless that is before
            ``not_before``.

    Raises:
        InputError: the clocks of the zone never showed it, because they were put forward.
    """
    moments = [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    if moments[0].astimezone(zone).replace(tzinfo=None) != local.replace(fold=0):
        raise InputError(f"{local} does not exist in {zone}, where clocks were put forward: give another time zone")
    return moments[1] if not_before is not None and moments[0] < not_before else moments[0]
