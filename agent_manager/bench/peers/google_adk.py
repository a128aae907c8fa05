"""``google-adk``: its session service on a database, with the session objects that it demands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from google.adk.events.event import Event
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.session import Session
from google.genai.types import Content, Part

from agent_manager.bench.messages import Message
from agent_manager.bench.peers.sqlalchemy_engine import options, url
from agent_manager.bench.place import Place
from agent_manager.bench.rates import drive

_APP = "bench"


class GoogleAdk:
    """The service, and the sessions that are open."""

    async def open(self, place: Place, schema: str, connections: int) -> None:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        self._sessions: dict[UUID, Session] = {}
        given = url(place).render_as_string(hide_password=False)
        self._service = DatabaseSessionService(db_url=given, **options(schema, connections))
        await self._service.prepare_tables()

    async def begin(self, messages: Sequence[Message]) -> None:
        """Creates the sessions."""
        for message in messages:
            if message.conversation_id not in self._sessions:
                self._sessions[message.conversation_id] = await self._service.create_session(
                    app_name=_APP, user_id=message.actor, session_id=str(message.conversation_id)
                )

    def prepared(self, message: Message) -> tuple[Session, Event]:
        """An event of its own, and the session it goes into."""
        role = "user" if message.role == "user" else "model"
        content = Content(role=role, parts=[Part(text=message.text)])
        event = Event(id=str(message.id), invocation_id=str(message.id), author=message.actor, content=content)
        return self._sessions[message.conversation_id], event

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        return await drive(plan, lambda _, given: self.append(given), seconds)

    async def append(self, given: tuple[Session, Event]) -> None:
        """Appends an event."""
        await self._service.append_event(*given)

    async def read_session(self, conversation_id: UUID) -> list[Event]:
        """The events of a session, read anew."""
        known = self._sessions[conversation_id]
        found = await self._service.get_session(app_name=_APP, user_id=known.user_id, session_id=known.id)
        return [] if found is None else list(found.events)

    async def close(self) -> None:
        """Closes the engine."""
        await self._service.close()


make = GoogleAdk
