"""The conversations of a manager that runs in this process: the demo application's own, ours, or one like them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from agent_manager.migrating.files import local_file, parts_of_task, put_back
from agent_manager.migrating.grouping import grouped
from agent_manager.migrating.plain import plain
from agent_manager.migrating.source import SourceConversation, SourceUnreadable
from agent_manager.migrating.wire import Json, canonical_card


class ManagerSource:
    """What a manager holds, read as it stands when it is asked.

    Args:
        manager: has ``conversations`` and, if it likes, ``tasks``, ``events`` and ``agents``: as attributes, properties
            or methods, async or not; of what the demo application's hides, ``_messages`` and ``_events`` are read too.
        files: the parts that the application's server has put aside and replaced by ``/message/file/…``, by their id
            (the demo's ``ConversationServer._file_cache``).
    """

    def __init__(self, manager: Any, files: Mapping[str, Any] | None = None) -> None:
        self.name = type(manager).__name__
        self._manager = manager
        self._files = files or {}

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        if not hasattr(self._manager, "conversations"):
            raise SourceUnreadable(f"{self.name} has no conversations: give a manager of conversations")
        listed = [plain(one) for one in await self._list("conversations")]
        events = await self._list("events") or await self._list("_events")
        found = grouped(
            listed,
            [plain(one) for one in await self._list("tasks")],
            [plain(one) for one in events],
            [plain(one) for one in await self._list("_messages")],
        )
        for conversation in found:
            for message in conversation.messages:
                message.fetched = self._put_back(message.wire.get("parts"))
            for place, task in enumerate(conversation.tasks):
                apart = [self._put_back(parts) for parts in parts_of_task(task)]
                if any(apart):
                    conversation.fetched_tasks.append(place)
            yield conversation

    async def agents(self) -> list[Json]:
        """See :class:`Source`."""
        return [canonical_card(plain(card)) for card in await self._list("agents")]

    async def pending(self) -> int:
        """See :class:`Source`."""
        return len(await self._list("get_pending_messages"))

    async def _list(self, name: str) -> list[Any]:
        """What an attribute, property or method holds; a copy, for the application may go on meanwhile."""
        value = getattr(self._manager, name, None)
        if callable(value):
            value = value()
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, Mapping):
            value = value.values()
        return list(value) if isinstance(value, Iterable) else []

    def _put_back(self, parts: Any) -> list[int]:
        """Puts the files of these parts back; the places of those that the application's server keeps apart."""
        apart = []
        for place, part in enumerate(parts if isinstance(parts, list) else ()):
            if (file_id := local_file(part)) is not None:
                apart.append(place)
                if file_id in self._files:
                    parts[place] = put_back(part, plain(self._files[file_id]))
        return apart
