"""``a2a-sdk``: its task store, which keeps a conversation as one row and writes it anew with every message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from a2a.server.context import ServerCallContext
from a2a.server.tasks import DatabaseTaskStore
from a2a.types import Message as A2AMessage
from a2a.types import Part, Role, Task, TaskState, TaskStatus

from agent_manager.bench.messages import Message
from agent_manager.bench.peers.sqlalchemy_engine import engine
from agent_manager.bench.place import Place
from agent_manager.bench.rates import drive


class A2aSdk:
    """The task store, and the tasks in hand."""

    async def open(self, place: Place, schema: str, connections: int) -> None:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        self._tasks: dict[UUID, Task] = {}
        self._context = ServerCallContext()
        self._engine = engine(place, schema, connections)
        self._store = DatabaseTaskStore(self._engine)
        await self._store.initialize()

    async def begin(self, messages: Sequence[Message]) -> None:
        """Makes the task objects; their rows are made by the first save."""
        for message in messages:
            if message.conversation_id not in self._tasks:
                self._tasks[message.conversation_id] = Task(
                    id=str(message.conversation_id),
                    context_id=str(message.conversation_id),
                    status=TaskStatus(state=TaskState.TASK_STATE_WORKING),
                )

    def prepared(self, message: Message) -> tuple[Task, A2AMessage]:
        """A message of its own, and the task whose history it joins."""
        role = Role.ROLE_USER if message.role == "user" else Role.ROLE_AGENT
        made = A2AMessage(message_id=str(message.id), role=role, parts=[Part(text=message.text)])
        return self._tasks[message.conversation_id], made

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        return await drive(plan, self._append, seconds)

    async def _append(self, _: int, given: tuple[Task, A2AMessage]) -> None:
        task, message = given
        task.history.append(message)
        await self._store.save(task, self._context)

    async def close(self) -> None:
        """Closes the engine."""
        await self._engine.dispose()


make = A2aSdk
