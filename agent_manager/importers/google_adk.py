"""Conversations from the tables of google-adk's DatabaseSessionService, in SQLite or PostgreSQL.

What google-adk writes differs by version. An event's JSON (2.x) holds seconds since 1970: exact. In columns (1.x) it is
the local time of the machine that the agent ran on, without its zone; recent versions write UTC there, and the table
does not tell which. So a zone has to be given. An event that it dates before its session began, or in the future, shows
that it is another one. (That it lies after the session's last change shows nothing: many versions note a change only if
the state changed.)

A session's own times are in UTC in SQLite. In PostgreSQL they are in UTC or in a local time: of the two readings, the
one that is nearer to the events counts.

A part that is more than a text or a file becomes a data part whose ``metadata.adk_type`` says what it was, as
google-adk's own A2A converter has it; so nothing of an event is lost.

Three are known: events as one JSON value (2.x, ``DatabaseSessionService`` and ``SqliteSessionService``), and events in
columns (1.x), of which older versions have fewer. What the latter keep pickled, an event's actions, is not read: a
pickle can do anything when it is read, and what the actions did to the state stands in the session's state.

A session is identified by application, user and session id; the id alone may be used by several users.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias
from urllib.parse import quote

import psycopg
from psycopg.rows import dict_row

from agent_manager.importers.chat_log import in_zone, read_time, time_zone
from agent_manager.importers.source import (
    CLOCKS_DIFFER,
    Json,
    SourceConversation,
    SourceEvent,
    SourceMessage,
    SourceUnreadable,
)
from eventstore.database.queries import query
from eventstore.errors import InputError, printable
from eventstore.urls import check_url, has_password_parameter, show_name

# Times of a session, in UTC

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


# An event of google-adk as an A2A message: what A2A has a place for in its place, everything else in metadata.adk

_URL_SAFE = str.maketrans("-_", "+/")
"""google-adk writes bytes in the alphabet of URLs, A2A reads the plain one."""


def message_of(event: Json, context_id: str) -> Json | None:
    """Return the message of an event, None if it has no content."""
    content = event.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not parts:
        return None
    assert isinstance(content, dict)
    rest = {name: value for name, value in event.items() if name not in ("content", "id") and value is not None}
    rest |= {f"content_{name}": value for name, value in content.items() if name != "parts" and value is not None}
    return {
        "kind": "message",
        "messageId": str(event.get("id", "")),
        "contextId": context_id,
        "role": "user" if event.get("author") == "user" else "agent",
        "parts": [_part(part) for part in parts],
        "metadata": {"adk": rest},
    }


def _part(part: Any) -> Json:
    if not isinstance(part, dict):
        return _data(part, "part")
    said = {name: value for name, value in part.items() if value is not None}
    if isinstance(said.get("text"), str) and said.keys() <= {"text", "thought"}:
        return _about({"kind": "text", "text": said["text"]}, {"adk_thought": said.get("thought")})
    if said.keys() == {"inline_data"} and (file := _file(said["inline_data"], "data", "bytes")) is not None:
        return {"kind": "file", "file": file}
    if said.keys() == {"file_data"} and (file := _file(said["file_data"], "file_uri", "uri")) is not None:
        return {"kind": "file", "file": file}
    if len(said) == 1:
        [(kind, value)] = said.items()
        return _data(value, kind)
    return _data(said, "part")


def _file(blob: Any, place: str, name: str) -> Json | None:
    known = {place: name, "mime_type": "mimeType", "display_name": "name"}
    if not isinstance(blob, dict) or not isinstance(blob.get(place), str) or not blob.keys() <= known.keys():
        return None
    file = {known[member]: value for member, value in blob.items() if value is not None}
    if name == "bytes":
        file["bytes"] = file["bytes"].translate(_URL_SAFE)
    return file


def _data(value: Any, kind: str) -> Json:
    if isinstance(value, dict):
        return {"kind": "data", "data": value, "metadata": {"adk_type": kind}}
    return {"kind": "data", "data": {kind: value}, "metadata": {"adk_type": "part"}}


def _about(part: Json, metadata: Json) -> Json:
    known = {name: value for name, value in metadata.items() if value is not None}
    return part | {"metadata": known} if known else part


# Reading google-adk's tables, in SQLite or PostgreSQL: each source in one snapshot, and never written to

Row: TypeAlias = dict[str, Any]
_PACKAGE = "agent_manager.importers"


class Tables(Protocol):
    """An open database.

    Attributes:
        place: where the database is, without its login.
        tie: the column that orders events of the same time.
        sessions_in_utc: whether times of sessions are in UTC. In SQLite they are, by its own clock and by google-adk;
            in PostgreSQL they depend on the version of google-adk and on the server's time zone.
    """

    place: str
    tie: str
    sessions_in_utc: bool

    async def rows(self, name: str, given: Row | None = None, **words: str) -> list[Row]:
        """The rows that a statement gives; ``words`` are written into its text."""
        ...

    async def columns(self) -> list[Row]:
        """Of each of google-adk's tables."""
        ...

    async def close(self) -> None:
        """Ends reading."""
        ...


def json_value(value: Any) -> Any:
    """Return a JSON value: PostgreSQL has it as one, SQLite as a text."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return {"unreadable": str(value)}


async def open_tables(url: str) -> Tables:
    """Opens a database.

    Args:
        url: as google-adk takes it (``sqlite+aiosqlite:///sessions.db``, ``postgresql+asyncpg://…``), or the path of an
            SQLite file.

    Raises:
        SourceUnreadable: it cannot be opened.
    """
    scheme, separator, rest = url.partition("://")
    kind = scheme.partition("+")[0]
    if not separator:
        return await asyncio.to_thread(_Sqlite, Path(url))
    if kind == "sqlite":
        return await asyncio.to_thread(_Sqlite, Path(rest.partition("?")[0].removeprefix("/")))
    if kind in ("postgres", "postgresql"):
        return await _Postgresql.connected(check_url(f"postgresql://{rest}", "the URL of google-adk's sessions"))
    raise SourceUnreadable(
        "the URL of google-adk's sessions: names neither SQLite nor PostgreSQL: give sqlite:///FILE or postgresql://…"
    )


class _Sqlite:
    tie = "rowid"
    sessions_in_utc = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path.resolve())
        if not path.is_file():
            raise SourceUnreadable(f"{show_name(str(path))}: is no file: give the SQLite file of google-adk's sessions")
        try:
            address = f"file:{quote(str(path.absolute()))}?mode=ro"
            self._connection = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    async def rows(self, name: str, given: Row | None = None, **words: str) -> list[Row]:
        text = re.sub(r"%\((\w+)\)s", r":\1", _text(name, words))
        return await asyncio.to_thread(self._fetch, text, given or {})

    async def columns(self) -> list[Row]:
        return await self.rows("columns_sqlite")

    async def close(self) -> None:
        self._connection.close()

    def _fetch(self, text: str, given: Row) -> list[Row]:
        try:
            return [dict(row) for row in self._connection.execute(text, given)]
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: sqlite3.Error) -> SourceUnreadable:
        return SourceUnreadable(f"{show_name(str(self._path))}: {error}: give the SQLite file of google-adk's sessions")


class _Postgresql:
    tie = "id"
    sessions_in_utc = False

    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        self._connection = connection
        self.place = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"

    @classmethod
    async def connected(cls, url: str) -> _Postgresql:
        url = re.sub(r"([?&])ssl=", r"\1sslmode=", url)  # asyncpg's word for it
        try:
            connection = await psycopg.AsyncConnection.connect(url, row_factory=dict_row)
        except psycopg.Error as error:
            if isinstance(error, psycopg.ProgrammingError) and has_password_parameter(url):
                raise _refused("its parameters are not those of libpq") from None
            raise _refused(str(error)) from None
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        return cls(connection)

    async def rows(self, name: str, given: Row | None = None, **words: str) -> list[Row]:
        try:
            return await (await self._connection.execute(_text(name, words).encode(), given)).fetchall()
        except psycopg.Error as error:
            raise _refused(str(error)) from None

    async def columns(self) -> list[Row]:
        return await self.rows("columns_postgresql")

    async def close(self) -> None:
        await self._connection.close()


def _text(name: str, words: Row) -> str:
    text = query(_PACKAGE, name)
    return text.format(**words) if words else text


def _refused(reason: str) -> SourceUnreadable:
    return SourceUnreadable(f"the database of google-adk's sessions: {printable(reason)}: correct the URL")


# google-adk's sessions as conversations, from the layouts that its versions have made

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
