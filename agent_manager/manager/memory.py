"""The manager in memory: gone when the process ends."""

from __future__ import annotations

from typing import Any

from agent_manager.agents.answering import Answer
from agent_manager.manager.contract import ApplicationManager
from agent_manager.manager.manager import Manager
from agent_manager.manager.memorylog import MemoryLog


class MemoryManager(ApplicationManager):
    """See :class:`ApplicationManager`."""

    def __init__(self, *, tenant: str = "default", answer: Answer | None = None, types: Any = None) -> None:
        super().__init__(lambda: memory_manager(tenant, answer), answer, types)


def memory_manager(tenant: str, answer: Answer | None) -> Manager:
    """Return the asynchronous manager in memory."""
    return Manager(MemoryLog(tenant), answer)
