"""google-adk's sessions as conversations, from the layouts that its versions have made.

Three are known: events as one JSON value (2.x, ``DatabaseSessionService`` and ``SqliteSessionService``), and events in
columns (1.x), of which older versions have fewer. What the latter keep pickled, an event's actions, is not read: a
pickle can do anything when it is read, and what the actions did to the state stands in the session's state.

A session is identified by application, user and session id; the id alone may be used by several users.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256
from types import TracebackType
from typing import Self

from agent_manager.migrating.adk.clock import Clock
from agent_manager.migrating.adk.messages import message_of
from agent_manager.migrating.adk.tables import Row, Tables, json_value, open_tables
from agent_manager.migrating.source import (
    SourceConversation,
    SourceEvent,
    SourceMessage,
    SourceUnreadable,
)
from agent_manager.migrating.wire import Json

STATE = "adk.state"
"""The application's event that keeps a session's state, with what it shares with its user and application."""
EVENT = "adk.event"
"""That which keeps an event of google-adk that says nothing."""

_KEYS = frozenset(("app_name", "user_id", "session_id"))
_PICKLED = frozenset(("actions",))
_NEEDED = {"sessions": _KEYS - {"session_id"} | {"id", "state"}, "events": _KEYS | {"id", "timestamp"}}


def conversation_name(app_name: str, user_id: str, session_id: str) -> str:
    """Return the id of a session's conversation; different for every application, user and session."""
    return "/".join(name.replace("%", "%25").replace("/", "%2F") for name in (app_name, user_id, session_id))


class AdkSource:
    """The sessions in a database of google-adk's. Open it as a context manager.

    Args:
        url: see :func:`open_tables`.
        time_zone: the zone of the machine that the agents ran on. The older layouts, and only they, keep times in it.

    Raises:
        SourceUnreadable: it cannot be read, its tables are not google-adk's, or times need a zone and none is given.
        InputError: there is no such zone.
    """

    def __init__(self, url: str, time_zone: str | None = None) -> None:
        self.name = "google-adk"
        self._url = url
        self._time_zone = time_zone
        self._tables: Tables | None = None
        self._columns: dict[str, set[str]] = {}

    async def __aenter__(self) -> Self:
        self._tables = await open_tables(self._url)
        self.name = f"google-adk in {self._tables.place}"
        for row in await self._tables.columns():
            self._columns.setdefault(row["table_name"], set()).add(row["column_name"])
        for table, needed in _NEEDED.items():
            if not needed <= self._columns.get(table, set()):
                await self._tables.close()
                raise SourceUnreadable(f"the table {table} is not google-adk's: give the database of its sessions")
        if not {"event_data", "content"} & self._columns["events"]:
            await self._tables.close()
            raise SourceUnreadable("the table events is not google-adk's: give the database of its sessions")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tables is not None:
            await self._tables.close()

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        shared = await self._shared_state()
        for session in await self._rows("sessions"):
            yield await self._conversation(session, shared)

    async def agents(self) -> list[Json]:
        """See :class:`Source`: google-adk keeps none."""
        return []

    async def pending(self) -> int:
        """See :class:`Source`: google-adk keeps none."""
        return 0

    async def _conversation(self, session: Row, shared: dict[tuple[str, ...], Json]) -> SourceConversation:
        app_name, user_id, session_id = session["app_name"], session["user_id"], session["id"]
        given = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
        kept = SourceConversation(conversation_name(**given), metadata={"adk": given})
        wanted = sorted(self._columns["events"] - _KEYS - _PICKLED)
        assert self._tables is not None
        rows = await self._rows(
            "events", given, columns=", ".join(f'"{name}"' for name in wanted), tie=self._tables.tie
        )
        clock = Clock(kept.id, self._time_zone, session, rows, sessions_in_utc=self._tables.sessions_in_utc)
        kept.created_at = clock.created_at
        for moment, row in clock.dated(rows):
            event = _event(row, moment)
            message = message_of(event, kept.id)
            if message is not None:
                kept.messages.append(SourceMessage(message, moment))
            else:
                kept.events.append(SourceEvent(f"event {event['id']}", EVENT, event, moment))
        state = dict(json_value(session["state"]) or {})
        state |= {f"app:{name}": value for name, value in shared.get((app_name,), {}).items()}
        state |= {f"user:{name}": value for name, value in shared.get((app_name, user_id), {}).items()}
        if state:
            update = clock.updated_at
            digest = sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
            name = f"state {digest[:32]} {update.isoformat() if update else ''}".rstrip()
            kept.events.append(SourceEvent(name, STATE, state, update))
        return kept

    async def _shared_state(self) -> dict[tuple[str, ...], Json]:
        shared: dict[tuple[str, ...], Json] = {}
        if "app_states" in self._columns:
            shared |= {(row["app_name"],): json_value(row["state"]) for row in await self._rows("app_states")}
        if "user_states" in self._columns:
            states = await self._rows("user_states")
            shared |= {(row["app_name"], row["user_id"]): json_value(row["state"]) for row in states}
        return shared

    async def _rows(self, name: str, given: Row | None = None, **words: str) -> list[Row]:
        if self._tables is None:
            raise SourceUnreadable("the source is not open: use 'async with'")
        return await self._tables.rows(name, given, **words)


def _event(row: Row, moment: datetime | None) -> Json:
    """Return an event as google-adk shows it, whichever way it is kept."""
    at = {"id": row["id"], "timestamp": None if moment is None else moment.timestamp()}
    if "event_data" in row:
        kept = json_value(row["event_data"]) or {}
        return at | kept | {"id": row["id"]}
    columns = {name: json_value(value) if name in _JSON_COLUMNS else value for name, value in row.items()}
    tools = columns.pop("long_running_tool_ids_json", None)
    for name in _BOOLEAN_COLUMNS & columns.keys():
        columns[name] = None if columns[name] is None else bool(columns[name])
    if tools:
        columns["long_running_tool_ids"] = json_value(tools)
    return {name: value for name, value in (columns | at).items() if value is not None}


_JSON_COLUMNS = frozenset((
    "content", "grounding_metadata", "custom_metadata", "usage_metadata", "citation_metadata", "input_transcription",
    "output_transcription",
))  # fmt: skip
_BOOLEAN_COLUMNS = frozenset(("partial", "turn_complete", "interrupted"))
