"""An answer ends with a message: where an agent only worked on a task, what it said last of it, or what it produced."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from agent_manager.agents.answering import ArtifactUpdate, Reply, StatusUpdate, TaskSeen, Update
from agent_manager.agents.artifacts import joined
from agent_manager.agents.wire import OPEN, Json, Shape, agent_role, shape_of, status_of

MAX_BYTES = 256 * 1024
"""Of the artifacts' parts that are repeated in the message, as JSON; they stand whole in the task."""


async def with_reply(updates: AsyncGenerator[Update, None]) -> AsyncGenerator[Update, None]:
    """Passes updates on, and ends with a reply if none of them was one and there is something to say."""
    task = LastTask()
    replied = False
    async with aclosing(updates):
        async for update in updates:
            replied |= isinstance(update, Reply)
            task.take(update)
            yield update
    if not replied and (message := task.last_words()) is not None:
        yield Reply(message)


class LastTask:
    """The task that the agent spoke of last, as far as it told.

    Attributes:
        task_id: as the agent gave it; None while it spoke of none.
        ended: whether the agent said that nothing follows.
    """

    def __init__(self) -> None:
        self.task_id: str | None = None
        self.ended = False
        self._context_id: str | None = None
        self._shape: Shape = "0.3"
        self._status: Json = {}
        self._artifacts: dict[Any, Json] = {}

    @property
    def is_open(self) -> bool:
        """Whether the agent goes on working on it by itself."""
        return self.task_id is not None and not self.ended and status_of(self._status.get("state")) in OPEN

    def take(self, update: Update) -> None:
        """Learns what an update says."""
        match update:
            case TaskSeen(task):
                context_id = task.get("contextId")
                self._turn_to(task["id"], context_id if isinstance(context_id, str) else None)
                self._learn(task.get("status"))
                artifacts = task.get("artifacts")
                for artifact in artifacts if isinstance(artifacts, list) else []:
                    if isinstance(artifact, dict):
                        self._artifacts[str(artifact.get("artifactId"))] = artifact
            case StatusUpdate():
                self._turn_to(update.task_id, update.context_id)
                self._learn(update.status)
                self.ended = update.final
            case ArtifactUpdate():
                self._turn_to(update.task_id, update.context_id)
                key = str(update.artifact.get("artifactId"))
                known = self._artifacts.get(key) if update.append else None
                self._artifacts[key] = update.artifact if known is None else joined(known, update.artifact)

    def last_words(self) -> Json | None:
        """What can stand for the agent's reply."""
        message = self._status.get("message")
        if isinstance(message, dict) and message.get("parts"):
            return message
        parts = self._parts()
        if self.task_id is None or not parts:
            return None
        head: Json = {"kind": "message"} if self._shape == "0.3" else {}
        said = head | {"messageId": str(uuid4()), "role": agent_role(self._shape), "parts": parts}
        context = {} if self._context_id is None else {"contextId": self._context_id}
        return said | context | {"taskId": self.task_id}

    def _turn_to(self, task_id: str, context_id: str | None) -> None:
        if task_id != self.task_id:
            self._status, self._artifacts, self._context_id = {}, {}, None
        self.task_id, self.ended = task_id, False
        self._context_id = context_id or self._context_id

    def _learn(self, status: Any) -> None:
        if isinstance(status, dict):
            self._status = status
            self._shape = shape_of({"status": status})

    def _parts(self) -> list[Any]:
        parts, size = [], 0
        for artifact in self._artifacts.values():
            for part in artifact["parts"] if isinstance(artifact.get("parts"), list) else []:
                try:
                    size += len(json.dumps(part, default=str))
                except (ValueError, RecursionError):  # it holds itself, or is nested too deep
                    continue
                if size <= MAX_BYTES:
                    parts.append(part)
        return parts
