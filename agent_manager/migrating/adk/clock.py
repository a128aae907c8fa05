"""Times of a session, in UTC.

What google-adk writes differs by version. An event's JSON (2.x) holds seconds since 1970: exact. In columns (1.x) it is
the local time of the machine that the agent ran on, without its zone; recent versions write UTC there, and the table
does not tell which. So a zone has to be given. An event that it dates before its session began, or in the future, shows
that it is another one. (That it lies after the session's last change shows nothing: many versions note a change only if
the state changed.)

A session's own times are in UTC in SQLite. In PostgreSQL they are in UTC or in a local time: of the two readings, the
one that is nearer to the events counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from agent_manager.importing.times import in_zone, read_time, time_zone
from agent_manager.migrating.adk.tables import Row, json_value
from agent_manager.migrating.source import CLOCKS_DIFFER, SourceUnreadable
from eventstore.errors import InputError

_ZONE = "give the zone of the machine that the agents ran on by --time-zone, such as America/Sao_Paulo or UTC"


class Clock:
    """The times of one session and its events.

    Args:
        name: of the session, for errors.
        zone: of local times; None if none is known.

    Attributes:
        created_at, updated_at: when the session began, and was changed last; None if it cannot be told.

    Raises:
        SourceUnreadable: the zone is missing, or contradicts the times.
        InputError: there is no such zone.
    """

    def __init__(self, name: str, zone: str | None, session: Row, rows: list[Row], *, sessions_in_utc: bool) -> None:
        self._name = name
        self._zone = None if zone is None else time_zone(zone)
        self._sessions_in_utc = sessions_in_utc
        self._now = datetime.now(UTC)
        created, updated = _time(session.get("create_time")), _time(session.get("update_time"))
        self.created_at = self._beside(created, rows[:1])
        self.updated_at = self._beside(updated, rows[-1:])

    def dated(self, rows: list[Row]) -> Iterator[tuple[datetime | None, Row]]:
        """Yield the session's events with their times, in the order of these if all are known."""
        found = [(self._moment(row), row) for row in rows]
        if all(moment is not None for moment, _ in found):
            # The column orders local times, of which the end of summer time repeats an hour.
            found.sort(key=lambda one: one[0] or self._now)
        yield from found

    def _moment(self, row: Row) -> datetime | None:
        written = _written(row)
        if written is None or written.tzinfo is not None:
            return written
        moment = self._in_zone(written, row, self.created_at)
        wrong = ""
        if moment > self._now + CLOCKS_DIFFER:
            wrong = "in the future"
        elif self.created_at is not None and moment < self.created_at - CLOCKS_DIFFER:
            wrong = f"before its session began ({self.created_at})"
        if wrong:
            why = f"the event {row['id']} is dated {written} in {self._zone}, {wrong}"
            raise SourceUnreadable(f"google-adk's session {self._name}: {why}: {_ZONE}")
        return moment

    def _in_zone(self, local: datetime, row: Row, not_before: datetime | None = None) -> datetime:
        if self._zone is None:
            why = f"the event {row['id']} has a local time without a zone ({local}), as google-adk 1.x writes it"
            raise SourceUnreadable(f"google-adk's session {self._name}: {why}: {_ZONE}")
        return in_zone(local, self._zone, not_before)

    def _beside(self, moment: datetime | None, events: list[Row]) -> datetime | None:
        """Return a time of the session that lies beside this event of it."""
        if moment is None or moment.tzinfo is not None:
            return moment
        readings = [moment.replace(tzinfo=UTC)]
        event = _written(events[0]) if events else None
        if self._sessions_in_utc:
            return readings[0]
        if event is None:  # events that come later would tell; a guess now would contradict them
            return None
        if self._zone is None:
            return readings[0]
        beside = self._in_zone(event, events[0]) if event.tzinfo is None else event
        with suppress(InputError):  # the clocks of the zone never showed it: it is in UTC
            readings.append(in_zone(moment, self._zone))
        return min(readings, key=lambda reading: abs(reading - beside))


def _written(row: Row) -> datetime | None:
    """Return when an event says that it happened, without an offset if that is a local time."""
    data = json_value(row.get("event_data"))
    exact = data.get("timestamp") if isinstance(data, dict) else None
    return _time(exact) or _time(row["timestamp"])


def _time(value: Any) -> datetime | None:
    """Return the time in a column, without an offset if it has none there; numbers are seconds since 1970."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC)
    return read_time(value)
