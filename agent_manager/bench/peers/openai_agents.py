"""``openai-agents``: its SQLAlchemy session, one for each conversation, on one engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from agents.extensions.memory import SQLAlchemySession

from agent_manager.bench.messages import Message
from agent_manager.bench.peers.sqlalchemy_engine import engine
from agent_manager.bench.place import Place
from agent_manager.bench.rates import drive


class OpenaiAgents:
    """An engine, and the sessions on it."""

    async def open(self, place: Place, schema: str, connections: int) -> None:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        self._sessions: dict[UUID, SQLAlchemySession] = {}
        self._engine = engine(place, schema, connections)
        await SQLAlchemySession("tables", engine=self._engine, create_tables=True).get_items()

    async def begin(self, messages: Sequence[Message]) -> None:
        """Makes the session objects; their rows are made by the first append."""
        for message in messages:
            if message.conversation_id not in self._sessions:
                self._sessions[message.conversation_id] = SQLAlchemySession(
                    str(message.conversation_id), engine=self._engine
                )

    def prepared(self, message: Message) -> tuple[SQLAlchemySession, list[Any]]:
        """An item as the model gives or takes it, and the session it goes into."""
        return self._sessions[message.conversation_id], [{"role": message.role, "content": message.text}]

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        return await drive(plan, self._append, seconds)

    async def _append(self, _: int, given: tuple[SQLAlchemySession, list[Any]]) -> None:
        session, items = given
        await session.add_items(items)

    async def close(self) -> None:
        """Closes the engine."""
        await self._engine.dispose()


make = OpenaiAgents
