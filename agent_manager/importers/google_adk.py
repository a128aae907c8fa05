"""Conversations from the tables of google-adk's DatabaseSessionService, in SQLite or PostgreSQL.

Three layouts are known: events as one JSON value (2.x, also of ``SqliteSessionService``), and events in columns (1.x;
older versions have fewer). The latter keep an event's actions pickled. These are not read, because unpickling
can execute anything; what the actions did to the state is in the session's state.

A session is identified by application, user and session id; several users may use the same session id.

Times differ by version. An event's JSON (2.x) holds seconds since 1970, which is exact. Columns (1.x) hold the local
time of the machine that the agent ran on, without its zone; recent versions write UTC there, and the table does not
show which. So a zone has to be given. An event that it dates before its session began, or in the future, shows that the
zone is wrong. (An event later than the session's last change shows nothing: many versions note a change only if the
state changed.) A session's own times are in UTC in SQLite. In PostgreSQL they are in UTC or in local time: of the two
readings, the one that is nearer to the events counts.

The conversations, with the tasks of function calls, are those of the adapter :mod:`agent_manager.adapters.google_adk`,
which goes on with them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.adapters.google_adk_events import ADK, EVENT, STATE, conversation_name, message_of, task_events
from agent_manager.importers.source import (
    SourceConversation,
    SourceEvent,
    SourceMessage,
    SourceUnreadable,
    contradiction_of_time,
    read_local_time,
    read_time,
)
from agent_manager.importers.tables import TableSource
from eventstore.errors import InputError
from eventstore.ids import derived_uuid
from eventstore.times import parse_zone

_KEYS = frozenset(("app_name", "user_id", "session_id"))
_PICKLED = frozenset(("actions",))
_REQUIRED = {"sessions": _KEYS - {"session_id"} | {"id", "state"}, "events": _KEYS | {"id", "timestamp"}}
_STATES = {"app_states": ("app_name",), "user_states": ("app_name", "user_id")}
"""The tables of the state that sessions share, with their keys."""
_JSON_COLUMNS = frozenset((
    "content", "grounding_metadata", "custom_metadata", "usage_metadata", "citation_metadata", "input_transcription",
    "output_transcription",
))  # fmt: skip
_BOOLEAN_COLUMNS = frozenset(("partial", "turn_complete", "interrupted"))


class AdkSource(TableSource):
    """The sessions in a database of google-adk.

    Args:
        url: see :func:`~agent_manager.importers.tables.open_tables`.
        time_zone: the zone of the machine that the agents ran on; needed for layouts 1.x.

    Raises:
        SourceUnreadable: the database cannot be read, its tables are not google-adk's, or the zone is missing or wrong.
        InputError: there is no such zone.
    """

    def __init__(self, url: str, time_zone: str | None = None) -> None:
        super().__init__(url, "google-adk", "google-adk's sessions")
        self._time_zone = time_zone
        self._columns: dict[str, set[str]] = {}

    async def check_tables(self) -> None:
        self._columns = await self.tables.columns((*_REQUIRED, *_STATES))
        columns_of_events = self._columns.get("events", set())
        for table, required in _REQUIRED.items():
            has_content = table != "events" or {"event_data", "content"} & columns_of_events
            if not has_content or not required <= self._columns.get(table, set()):
                raise SourceUnreadable(f"the table {table} is not google-adk's: give the database of its sessions")

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        shared = await self._shared_state()
        for session in await self.tables.rows("sessions"):
            yield await self._conversation(session, shared)

    async def _shared_state(self) -> dict[tuple[str, ...], Json]:
        """Return the state that sessions share, by application and by application and user."""
        shared: dict[tuple[str, ...], Json] = {}
        for table, keys in _STATES.items():
            if table in self._columns:
                for row in await self.tables.rows(table):
                    shared[tuple(row[key] for key in keys)] = _json_value(row["state"])
        return shared

    async def _conversation(self, session: Json, shared: dict[tuple[str, ...], Json]) -> SourceConversation:
        app_name, user_id = session["app_name"], session["user_id"]
        keys = {"app_name": app_name, "user_id": user_id, "session_id": session["id"]}
        conversation = SourceConversation(conversation_name(**keys), metadata={ADK: keys})
        columns = ", ".join(f'"{name}"' for name in sorted(self._columns["events"] - _KEYS - _PICKLED))
        is_sqlite = self.tables.is_sqlite
        rows = await self.tables.rows("events", keys, columns=columns, tie="rowid" if is_sqlite else "id")
        clock = SessionClock(conversation.id, self._time_zone, session, rows, sessions_in_utc=is_sqlite)
        conversation.created_at = clock.created_at
        tasks: dict[str, tuple[UUID, Json]] = {}
        for time, row in clock.dated(rows):
            event = _event(row, time)
            message = message_of(event, conversation.id)
            if message is None:
                conversation.events.append(SourceEvent(f"event {event['id']}", EVENT, event, time))
                continue
            message_id = derived_uuid("adk.import", conversation.id, str(event["id"]))
            for task_event, data in task_events(message, message_id, tasks):
                conversation.events.append(SourceEvent(str(task_event), data.event_type, data.to_content(), time))
            conversation.messages.append(SourceMessage(message, time))
        state = dict(_json_value(session["state"]) or {})
        state |= {f"app:{name}": value for name, value in shared.get((app_name,), {}).items()}
        state |= {f"user:{name}": value for name, value in shared.get((app_name, user_id), {}).items()}
        if state:
            digest = sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
            event_id = f"state {digest[:32]} {clock.updated_at.isoformat() if clock.updated_at else ''}".rstrip()
            conversation.events.append(SourceEvent(event_id, STATE, state, clock.updated_at))
        return conversation


def _event(row: Json, time: datetime | None) -> Json:
    """Return an event in google-adk's own JSON form, from either layout."""
    identity = {"id": row["id"], "timestamp": None if time is None else time.timestamp()}
    if "event_data" in row:
        return identity | (_json_value(row["event_data"]) or {}) | {"id": row["id"]}
    columns = {name: _json_value(value) if name in _JSON_COLUMNS else value for name, value in row.items()}
    tools = columns.pop("long_running_tool_ids_json", None)
    for name in _BOOLEAN_COLUMNS & columns.keys():
        columns[name] = None if columns[name] is None else bool(columns[name])
    if tools:
        columns["long_running_tool_ids"] = _json_value(tools)
    return {name: value for name, value in (columns | identity).items() if value is not None}


def _json_value(value: Any) -> Any:
    """Return a JSON value, which SQLite returns as a text."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return {"unreadable": str(value)}


# Times of a session, in UTC

_GIVE_ZONE = "give the zone of the machine that the agents ran on with --time-zone, such as America/Sao_Paulo or UTC"


class SessionClock:
    """The times of one session and its events, in UTC.

    Attributes:
        created_at, updated_at: when the session began, and changed last; None if that cannot be determined.

    Raises:
        SourceUnreadable: the zone is missing, or contradicts the times.
    """

    def __init__(self, name: str, zone: str | None, session: Json, rows: list[Json], *, sessions_in_utc: bool) -> None:
        self._name = name
        self._zone = None if zone is None else parse_zone(zone, "time_zone")
        self._sessions_in_utc = sessions_in_utc
        self._now = datetime.now(UTC)
        self.created_at = self._session_time(session.get("create_time"), rows[:1])
        self.updated_at = self._session_time(session.get("update_time"), rows[-1:])

    def dated(self, rows: list[Json]) -> Iterator[tuple[datetime | None, Json]]:
        """Yield the session's events with their times, in the order of these if all are known."""
        dated = [(self._event_time(row), row) for row in rows]
        if all(time is not None for time, _ in dated):
            # The column is ordered by local time, in which an hour repeats at the end of summer time.
            dated.sort(key=lambda pair: pair[0] or self._now)
        yield from dated

    def _event_time(self, row: Json) -> datetime | None:
        written = _written_time(row)
        if written is None or written.tzinfo is not None:
            return written
        time = self._in_zone(written, row, self.created_at)
        if contradiction := contradiction_of_time(time, self.created_at, self._now, "session"):
            raise self._error(f"the event {row['id']} is dated {written} in {self._zone}, {contradiction}")
        return time

    def _session_time(self, value: Any, events: list[Json]) -> datetime | None:
        """Return a time of the session in UTC, given the event next to it."""
        written = _column_time(value)
        if written is None or written.tzinfo is not None:
            return written
        in_utc = written.replace(tzinfo=UTC)
        event_time = _written_time(events[0]) if events else None
        if self._sessions_in_utc:
            return in_utc
        if event_time is None:  # later events will show it, and would contradict a guess
            return None
        if self._zone is None:
            return in_utc
        if event_time.tzinfo is None:
            event_time = self._in_zone(event_time, events[0])
        readings = [in_utc]
        with suppress(InputError):  # the clocks of the zone never showed it: it is in UTC
            readings.append(read_local_time(written, self._zone))
        return min(readings, key=lambda reading: abs(reading - event_time))

    def _in_zone(self, local: datetime, row: Json, not_before: datetime | None = None) -> datetime:
        if self._zone is None:
            raise self._error(f"the event {row['id']} has a local time without a zone ({local}), as in google-adk 1.x")
        return read_local_time(local, self._zone, not_before)

    def _error(self, reason: str) -> SourceUnreadable:
        return SourceUnreadable(f"google-adk's session {self._name}: {reason}: {_GIVE_ZONE}")


def _written_time(row: Json) -> datetime | None:
    """Return the time that an event was given, without an offset if it is a local time."""
    data = _json_value(row.get("event_data"))
    exact = data.get("timestamp") if isinstance(data, dict) else None
    return _column_time(exact) or _column_time(row["timestamp"])


def _column_time(value: Any) -> datetime | None:
    """Return the time in a column, without an offset if it has none there; numbers are seconds since 1970."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC)
    return read_time(value)
