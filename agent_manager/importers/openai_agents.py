"""Sessions from the tables of the OpenAI Agents SDK: those of its SQLAlchemySession and its SQLiteSession.

Every item becomes the events that :class:`~agent_manager.adapters.openai_agents.EventStoreSession` would have made of
it, in its order, so that a session goes on there. The times in SQLite are in UTC; those in PostgreSQL are local times,
in the zone of the server's setting TimeZone.

A row that is not JSON, which the SDK skips, is kept as an application event.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.adapters.openai_items import events_of
from agent_manager.importers.source import SourceConversation, SourceEvent, read_local_time
from agent_manager.importers.tables import TableSource
from eventstore.ids import derived_uuid
from eventstore.times import parse_zone

UNREADABLE = "openai.unreadable"
"""The type of the application event that holds a row that is not JSON."""


class OpenaiAgentsSource(TableSource):
    """The sessions in a database of the OpenAI Agents SDK.

    Args:
        url: in SQLAlchemy's form, or the path of an SQLite file.
        time_zone: the zone of the times in the tables; by default UTC in SQLite, the server's in PostgreSQL.

    Raises:
        SourceUnreadable: the database cannot be read, or its tables are not the SDK's.
        InputError: there is no such zone.
    """

    def __init__(self, url: str, time_zone: str | None = None) -> None:
        super().__init__(url, "openai-agents", "openai-agents' sessions")
        self._zone: tzinfo | None = None if time_zone is None else parse_zone(time_zone, "time_zone")

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        zone = self._zone or await self._server_zone()
        for session in await self.tables.rows("openai_sessions"):
            yield await self._conversation(session, zone)

    async def _server_zone(self) -> tzinfo:
        if self.tables.is_sqlite:
            return UTC
        [row] = await self.tables.rows("time_zone")
        return parse_zone(row["zone"], "time_zone")

    async def _conversation(self, session: Json, zone: tzinfo) -> SourceConversation:
        session_id = session["session_id"]
        conversation = SourceConversation(
            session_id, metadata={"openai": {"session_id": session_id}}, created_at=_time(session["created_at"], zone)
        )
        calls: dict[str, UUID] = {}
        for row in await self.tables.rows("openai_items", {"session_id": session_id}):
            time = _time(row["created_at"], zone)
            try:
                item = json.loads(row["message_data"])
            except ValueError:
                unreadable = {"json": row["message_data"]}
                conversation.events.append(SourceEvent(f"item {row['id']}", UNREADABLE, unreadable, time))
                continue
            new_task_id = partial(derived_uuid, "openai-agents", session_id, str(row["id"]))
            events = events_of([item], calls, check=True, new_task_id=new_task_id)
            for number, event in enumerate(events):
                event_id = f"item {row['id']}" + (f" ({number + 1})" if number else "")
                content: Any = event.data.to_content()
                conversation.events.append(SourceEvent(event_id, event.data.event_type, content, time))
        return conversation


def _time(value: Any, zone: tzinfo) -> datetime | None:
    """Return a time of the tables, which SQLite returns as a text, in UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value.astimezone(UTC) if value.tzinfo is not None else read_local_time(value, zone)
