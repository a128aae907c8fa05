"""google-adk's sessions as conversations, from the layouts that its versions have made.

Three are known: events as one JSON value (2.x, ``DatabaseSessionService`` and ``SqliteSessionService``), and events in
columns (1.x), of which older versions have fewer. What the latter keep pickled, an event's actions, is not read: a
pickle can do anything when it is read, and what the actions did to the state stands in the session's state.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

from agent_manager.importing.times import read_time
from agent_manager.migrating.adk.messages import message_of
from agent_manager.migrating.adk.tables import Row, Tables, open_tables
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


class AdkSource:
    """The sessions in a database of google-adk's. Open it as a context manager.

    Args:
        url: see :func:`open_tables`.

    Raises:
        SourceUnreadable: it cannot be read, or its tables are not google-adk's.
    """

    def __init__(self, url: str) -> None:
        self.name = "google-adk"
        self._url = url
        self._tables: Tables | None = None
        self._columns: dict[str, set[str]] = {}

    async def __aenter__(self) -> Self:
        self._tables = await open_tables(self._url)
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
        seen: Counter[str] = Counter()
        for session in await self._rows("sessions"):
            seen[session["id"]] += 1
            yield await self._conversation(session, shared, seen[session["id"]] > 1)

    async def agents(self) -> list[Json]:
        """See :class:`Source`: google-adk keeps none."""
        return []

    async def pending(self) -> int:
        """See :class:`Source`: google-adk keeps none."""
        return 0

    async def _conversation(self, session: Row, shared: dict[tuple[str, ...], Json], again: bool) -> SourceConversation:
        app_name, user_id, session_id = session["app_name"], session["user_id"], session["id"]
        # The same id may be used for another user: the first session of an id has it, the others are told apart.
        given_id = f"{app_name}/{user_id}/{session_id}" if again else session_id
        kept = SourceConversation(
            given_id,
            metadata={"adk": {"app_name": app_name, "user_id": user_id, "session_id": session_id}},
            created_at=read_moment(session["create_time"]),
        )
        given = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
        wanted = sorted(self._columns["events"] - _KEYS - _PICKLED)
        tie = self._tables.tie if self._tables is not None else "id"
        for row in await self._rows("events", given, columns=", ".join(f'"{name}"' for name in wanted), tie=tie):
            self._add(kept, row)
        state = dict(_json(session["state"]) or {})
        state |= {f"app:{name}": value for name, value in shared.get((app_name,), {}).items()}
        state |= {f"user:{name}": value for name, value in shared.get((app_name, user_id), {}).items()}
        if state:
            update = read_moment(session["update_time"])
            digest = sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
            name = f"state {digest[:32]} {update.isoformat() if update else ''}".rstrip()
            kept.events.append(SourceEvent(name, STATE, state, update))
        return kept

    def _add(self, kept: SourceConversation, row: Row) -> None:
        event = _event(row)
        moment = read_time(event.get("timestamp"))
        message = message_of(event, kept.id)
        if message is not None:
            kept.messages.append(SourceMessage(message, moment))
        else:
            kept.events.append(SourceEvent(f"event {event['id']}", EVENT, event, moment))

    async def _shared_state(self) -> dict[tuple[str, ...], Json]:
        shared: dict[tuple[str, ...], Json] = {}
        if "app_states" in self._columns:
            shared |= {(row["app_name"],): _json(row["state"]) for row in await self._rows("app_states")}
        if "user_states" in self._columns:
            states = await self._rows("user_states")
            shared |= {(row["app_name"], row["user_id"]): _json(row["state"]) for row in states}
        return shared

    async def _rows(self, name: str, given: Row | None = None, **words: str) -> list[Row]:
        if self._tables is None:
            raise SourceUnreadable("the source is not open: use 'async with'")
        return await self._tables.rows(name, given, **words)


def _event(row: Row) -> Json:
    """An event as google-adk shows it, whichever way it is kept."""
    moment = read_moment(row["timestamp"])
    at = {"id": row["id"], "timestamp": None if moment is None else moment.timestamp()}
    if "event_data" in row:
        kept = _json(row["event_data"]) or {}
        return at | kept | {"id": row["id"]}
    columns = {name: _json(value) if name in _JSON_COLUMNS else value for name, value in row.items()}
    tools = columns.pop("long_running_tool_ids_json", None)
    for name in _BOOLEAN_COLUMNS & columns.keys():
        columns[name] = None if columns[name] is None else bool(columns[name])
    if tools:
        columns["long_running_tool_ids"] = _json(tools)
    return {name: value for name, value in (columns | at).items() if value is not None}


_JSON_COLUMNS = frozenset((
    "content", "grounding_metadata", "custom_metadata", "usage_metadata", "citation_metadata", "input_transcription",
    "output_transcription",
))  # fmt: skip
_BOOLEAN_COLUMNS = frozenset(("partial", "turn_complete", "interrupted"))


def _json(value: Any) -> Any:
    """A JSON value: PostgreSQL has it as one, SQLite as a text."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return {"unreadable": str(value)}


def read_moment(value: Any) -> datetime | None:
    """A time of google-adk's: without a zone it is UTC, as google-adk reads it."""
    return read_time(value.isoformat() if isinstance(value, datetime) else value)
