"""Chunks of an answer while they come: which of them are stored together, and the message that they make up.

An agent does not wait until a chunk that continues an artifact or a message is stored. What has come by the time that
the chunks before are durable is stored together, in one event if nothing is lost by that. So the chunks of a slow agent
are stored as they come, and a stream of many small ones takes as many events as the store had time for. If the process
ends, what came during its last append is lost. Any other update is stored before the agent continues.

A message that comes in pieces (:class:`~agent_manager.agents.agent.ReplyChunk`) is stored as the artifact of a task of
its own while it grows, and as a message once it is complete; as that alone if it is complete before any of it is
stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from agent_manager.a2a import Json, merge_texts, state_name, version_of
from agent_manager.agents.agent import ArtifactUpdate, Reply, ReplyChunk, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.updates import checked_update
from agent_manager.errors import InvalidUpdate
from eventstore.concurrency import cancel_and_wait
from eventstore.event_types import TaskStatus

MAX_WAITING = 1000
"""Chunks that an agent is ahead of the store at most, as many as the store groups."""


async def batches(updates: AsyncGenerator[Update, None]) -> AsyncGenerator[list[Update | InvalidUpdate], None]:
    """Yield the updates that have come since the last time, with an error in place of each that is not valid.

    The error of an agent that fails is raised after the updates that came before it.
    """
    came: list[Update | InvalidUpdate] = []
    has_come, are_stored = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with aclosing(updates):
            async for given in updates:
                are_stored.clear()
                try:
                    came.append(checked_update(given))
                except InvalidUpdate as error:
                    came.append(error)
                has_come.set()
                if not _continues(came[-1]) or len(came) >= MAX_WAITING:
                    await are_stored.wait()

    # One task runs the agent from its beginning to its end: its time limits and task groups belong to a task.
    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: has_come.set())
    message = _GrowingMessage()
    try:
        while not reading.done() or came:
            await has_come.wait()
            has_come.clear()
            batch, came[:] = list(came), []
            has_ended = reading.done() and not reading.cancelled() and reading.exception() is None
            if batch:
                yield message.joined(batch, is_complete=has_ended)
            if not came:
                are_stored.set()
        await reading  # raises its error
        if rest := message.joined([], is_complete=True):
            yield rest
    finally:
        await cancel_and_wait([reading])


def _continues(update: Update | InvalidUpdate) -> bool:
    return update.append if isinstance(update, ArtifactUpdate) else isinstance(update, ReplyChunk)


class _GrowingMessage:
    """The message that the pieces make up which an agent sends, and the task that holds it while it grows."""

    def __init__(self) -> None:
        self._message: Json | None = None  # without its new parts
        self._new_parts: list[Any] = []
        self._task_id: str | None = None

    def joined(self, updates: Iterable[Update | InvalidUpdate], *, is_complete: bool) -> list[Update | InvalidUpdate]:
        """Return the updates, with others in place of the pieces of messages.

        Args:
            is_complete: whether no further piece of the message follows these updates.
        """
        result: list[Update | InvalidUpdate] = []
        for update in updates:
            if not isinstance(update, ReplyChunk):
                result += [*self._completed(), update]
                continue
            piece = update.message
            if self._message is not None and self._message.get("messageId") != piece.get("messageId"):
                result += self._completed()
            self._message = self._message or piece | {"parts": []}
            self._new_parts += piece["parts"]
        return result + (self._completed() if is_complete else self._grown())

    def _grown(self) -> list[Update]:
        """Return the updates that store the new parts; the recorder stores only what the artifact did not have yet."""
        if self._message is None or not self._new_parts:
            return []
        self._message = merge_texts(self._message | {"parts": self._message["parts"] + self._new_parts})
        self._new_parts = []
        updates: list[Update] = []
        if self._task_id is None:
            self._task_id = str(uuid4())
            kind = {"kind": "task"} if "kind" in self._message else {}
            context = {"contextId": self._message["contextId"]} if "contextId" in self._message else {}
            updates.append(
                TaskSnapshot(kind | {"id": self._task_id} | context | {"status": self._status(TaskStatus.IN_PROGRESS)})
            )
        artifact = {"artifactId": str(self._message.get("messageId", "")), "parts": self._message["parts"]}
        return [*updates, ArtifactUpdate(self._task_id, None, artifact, last_chunk=False)]

    def _completed(self) -> list[Update]:
        """Return the updates that store the whole message, and forget it."""
        if self._message is None:
            return []
        if self._task_id is None:
            whole = merge_texts(self._message | {"parts": self._new_parts})
            updates: list[Update] = [Reply(whole)]
        else:
            updates = self._grown()
            updates.append(StatusUpdate(self._task_id, None, self._status(TaskStatus.COMPLETED), final=True))
            updates.append(Reply(self._message | {"taskId": self._task_id}))
        self._message, self._new_parts, self._task_id = None, [], None
        return updates

    def _status(self, status: TaskStatus) -> Json:
        assert self._message is not None
        return {"state": state_name(status, version_of(self._message))}
