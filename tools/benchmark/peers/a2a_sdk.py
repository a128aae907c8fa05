"""``a2a-sdk``: its task store, which keeps a conversation as one row and writes it again with every message."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from a2a.server.context import ServerCallContext
from a2a.server.tasks import DatabaseTaskStore, TaskStore
from a2a.types import ListTasksRequest, Part, Role, Task, TaskState, TaskStatus
from a2a.types import Message as A2AMessage

from tools.benchmark.messages import Message
from tools.benchmark.peers import Peer
from tools.benchmark.peers.sqlalchemy_engine import engine
from tools.benchmark.workspace import Workspace


class A2aSdk(Peer):
    """The task store, and the tasks in memory, whose rows the first save inserts."""

    stored = "SELECT coalesce(sum(json_array_length(history)), 0) FROM tasks"

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        self._engine = engine(workspace, schema, connections)
        store = DatabaseTaskStore(self._engine)
        await store.initialize()
        self.use(store)

    def use(self, store: TaskStore) -> None:
        """Begin without tasks, in a store that is open."""
        self._tasks: dict[UUID, Task] = {}
        self._context = ServerCallContext()
        self._store = store

    @property
    def saved(self) -> list[Task]:
        """The tasks that have been saved, those that began first first."""
        return [task for task in self._tasks.values() if task.history]

    async def read(self, task: Task) -> Task | None:
        """Return a task as it is stored."""
        return await self._store.get(task.id, self._context)

    async def list_tasks(self) -> int:
        """Read the latest tasks, and return the number of all."""
        return (await self._store.list(ListTasksRequest(), self._context)).total_size

    async def begin(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.conversation_id not in self._tasks:
                self._tasks[message.conversation_id] = Task(
                    id=str(message.conversation_id),
                    context_id=str(message.conversation_id),
                    status=TaskStatus(state=TaskState.TASK_STATE_WORKING),
                )

    def prepare(self, message: Message) -> tuple[Task, A2AMessage]:
        role = Role.ROLE_USER if message.role == "user" else Role.ROLE_AGENT
        made = A2AMessage(message_id=str(message.id), role=role, parts=[Part(text=message.text)])
        return self._tasks[message.conversation_id], made

    async def append(self, given: tuple[Task, A2AMessage]) -> None:
        task, message = given
        task.history.append(message)
        await self._store.save(task, self._context)

    async def close(self) -> None:
        await self._engine.dispose()


peer = A2aSdk
