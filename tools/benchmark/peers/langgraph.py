"""``langgraph-checkpoint-postgres``: a checkpoint after each message, which holds all messages of the thread so far.

A saver serves one call at a time, so each caller has its own; they share a pool.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tools.benchmark.measurement import Rate, drive
from tools.benchmark.messages import Message
from tools.benchmark.peers import Peer
from tools.benchmark.workspace import Workspace


class Langgraph(Peer):
    """The savers, and the messages of the threads."""

    stored = "SELECT count(*) FROM checkpoints"

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        self._threads: dict[UUID, list[dict[str, str]]] = {}
        self._pool: AsyncConnectionPool[AsyncConnection[dict[str, Any]]] = AsyncConnectionPool(
            workspace.url,
            min_size=connections,
            max_size=connections,
            open=False,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0,
                "row_factory": dict_row,
                "options": f"-c search_path={schema}",
            },
        )
        await self._pool.open(wait=True)
        self._savers: defaultdict[int, AsyncPostgresSaver] = defaultdict(lambda: AsyncPostgresSaver(self._pool))
        await self._savers[0].setup()
        self.schema, self.saver = schema, self._savers[0]

    def prepare(self, message: Message) -> tuple[UUID, dict[str, str]]:
        return message.conversation_id, {"role": message.role, "content": message.text}

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> Rate:
        return await drive(plan, self._save, seconds)

    async def _save(self, caller: int, given: tuple[UUID, dict[str, str]]) -> None:
        thread, message = given
        messages = self._threads.setdefault(thread, [])
        messages.append(message)
        version = str(len(messages))
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": messages}
        checkpoint["channel_versions"] = {"messages": version}
        metadata: CheckpointMetadata = {"source": "loop", "step": len(messages), "parents": {}}
        config: Any = {"configurable": {"thread_id": str(thread), "checkpoint_ns": ""}}
        await self._savers[caller].aput(config, checkpoint, metadata, {"messages": version})

    async def close(self) -> None:
        await self._pool.close()


peer = Langgraph
