"""What is known of each conversation, so that lists of all of them need not read all of them."""

from __future__ import annotations

from uuid import UUID

from cachetools import LRUCache

from agent_manager.manager.folding import ConversationFold
from agent_manager.manager.happened import Summary, summary
from agent_manager.manager.manager import Manager

_KEPT = 200_000
"""Conversations and tasks whose summaries are kept, of all tenants: some tens of megabytes."""


class SummaryCache:
    """Summaries of conversations, each kept until there is a later version.

    A summary is of the conversation, not of who sees it: it is given only to those who see the conversation.
    """

    def __init__(self) -> None:
        self._kept: LRUCache[tuple[str, UUID], Summary] = LRUCache(_KEPT, getsizeof=lambda one: 1 + len(one.tasks))

    async def read(self, manager: Manager) -> dict[UUID, Summary]:
        """Return the summaries of a manager's conversations, in the order in which they began."""
        versions = await manager.versions()
        found: dict[UUID, Summary | None] = dict.fromkeys(versions)
        missing: dict[UUID, int | None] = {}
        for conversation_id, version in versions.items():
            kept = self._kept.get((manager.tenant, conversation_id))
            if kept is not None and kept.version >= version:
                found[conversation_id] = kept
            else:
                missing[conversation_id] = version
        async for fold in manager.folds(missing):
            found[fold.id] = self.add(manager.tenant, fold)
        return {each: one for each, one in found.items() if one is not None}

    def add(self, tenant: str, fold: ConversationFold) -> Summary:
        """Return the summary of a conversation that was read, and keep it."""
        made = summary(fold)
        if 1 + len(made.tasks) <= self._kept.maxsize:
            self._kept[tenant, fold.id] = made
        return made
