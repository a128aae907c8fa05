"""``google-adk``: its session service on a database, with the session objects that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.session import Session
from google.genai.types import Content, Part

from tools.benchmark.messages import Message
from tools.benchmark.peers import Peer
from tools.benchmark.peers.sqlalchemy_engine import options, url
from tools.benchmark.workspace import Workspace

_APP = "bench"


class GoogleAdk(Peer):
    """The session service, and the open sessions."""

    stored = "SELECT count(*) FROM events"

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        given = url(workspace).render_as_string(hide_password=False)
        service = DatabaseSessionService(db_url=given, **options(schema, connections))
        await service.prepare_tables()
        self.use(service)

    def use(self, service: BaseSessionService) -> None:
        """Begin without sessions, by a service that is open."""
        self._sessions: dict[UUID, Session] = {}
        self._service = service

    async def begin(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.conversation_id not in self._sessions:
                self._sessions[message.conversation_id] = await self._service.create_session(
                    app_name=_APP, user_id=message.actor, session_id=str(message.conversation_id)
                )

    def prepare(self, message: Message) -> tuple[Session, Event]:
        role = "user" if message.role == "user" else "model"
        content = Content(role=role, parts=[Part(text=message.text)])
        event = Event(id=str(message.id), invocation_id=str(message.id), author=message.actor, content=content)
        return self._sessions[message.conversation_id], event

    async def append(self, given: tuple[Session, Event]) -> None:
        await self._service.append_event(*given)

    async def read_session(self, conversation_id: UUID) -> list[Event]:
        """Read the events of a session from the database."""
        known = self._sessions[conversation_id]
        found = await self._service.get_session(app_name=_APP, user_id=known.user_id, session_id=known.id)
        return [] if found is None else list(found.events)

    async def list_sessions(self) -> list[Session]:
        """Return all sessions, without their events."""
        return (await self._service.list_sessions(app_name=_APP)).sessions

    async def close(self) -> None:
        await self._service.close()  # type: ignore[attr-defined] # of both services


peer = GoogleAdk
