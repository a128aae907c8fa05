"""``openai-agents``: its SQLAlchemy session, one for each conversation, on one engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from agents.extensions.memory import SQLAlchemySession

from tools.benchmark.messages import Message
from tools.benchmark.peers import Peer
from tools.benchmark.peers.sqlalchemy_engine import engine
from tools.benchmark.workspace import Workspace


class OpenaiAgents(Peer):
    """An engine, and the sessions on it, whose rows the first append inserts."""

    stored = "SELECT count(*) FROM agent_messages"

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        self._sessions: dict[UUID, SQLAlchemySession] = {}
        self._engine = engine(workspace, schema, connections)
        await SQLAlchemySession("tables", engine=self._engine, create_tables=True).get_items()

    async def begin(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.conversation_id not in self._sessions:
                self._sessions[message.conversation_id] = SQLAlchemySession(
                    str(message.conversation_id), engine=self._engine
                )

    def prepare(self, message: Message) -> tuple[SQLAlchemySession, list[Any]]:
        return self._sessions[message.conversation_id], [{"role": message.role, "content": message.text}]

    async def append(self, given: tuple[SQLAlchemySession, list[Any]]) -> None:
        session, items = given
        await session.add_items(items)

    async def read_session(self, conversation_id: UUID) -> list[Any]:
        """Return the items of a session."""
        return list(await self._sessions[conversation_id].get_items())

    async def close(self) -> None:
        await self._engine.dispose()


peer = OpenaiAgents
