"""When a message or a conversation says that it happened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

TIME_MEMBERS = ("timestamp", "created_at", "created", "create_time", "time")
"""The members that say so; the first that can be read counts."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS = 1e11  # as seconds that is the year 5138


def own_time(sent: Mapping[str, Any]) -> datetime | None:
    """The time of a message or conversation, in UTC; None where it has none that can be read.

    ISO 8601 (without a zone it is UTC), or seconds or milliseconds since 1970.
    """
    moments = (read_time(sent[name]) for name in TIME_MEMBERS if name in sent)
    return next((moment for moment in moments if moment is not None), None)


def read_time(value: Any) -> datetime | None:
    """The time that a JSON value stands for."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _EPOCH + timedelta(**{"milliseconds" if abs(value) > _MILLISECONDS else "seconds": value})
    except (ValueError, OverflowError):
        pass
    return None
