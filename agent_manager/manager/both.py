"""The manager of the transition: every write goes to PostgreSQL and into memory, reads come from the one chosen.

Whatever is read is read from both and compared; what differs is counted, kept for a report, and logged. The side that
is read from decides: where the other fails, that is counted, what it lacks is owed to it, and given before anything
else of the same conversation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from agent_manager.agents.answering import Answer
from agent_manager.manager.bothlog import BothLog, copy
from agent_manager.manager.contract import ApplicationManager
from agent_manager.manager.core import running_worker
from agent_manager.manager.differences import Differences
from agent_manager.manager.log import ServerLog
from agent_manager.manager.manager import Manager
from agent_manager.manager.memorylog import MemoryLog
from agent_manager.manager.postgres import settings_of
from agent_manager.manager.registry import AGENTS
from eventstore import EventStore, Settings, conversation_uuid
from eventstore.errors import SettingsError


class BothManager(ApplicationManager):
    """See :class:`ApplicationManager`.

    What PostgreSQL holds is copied into memory when it opens.

    Args:
        settings: as for :class:`~agent_manager.manager.postgres.PostgreSQLManager`.
        read_from: ``memory`` or ``postgres``; by default as the settings say (``EVENTSTORE_READ_FROM``).

    Attributes:
        differences: what was compared, and what of it differed.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        read_from: Literal["memory", "postgres"] | None = None,
        answer: Answer | None = None,
        types: Any = None,
        runs_worker: bool = True,
    ) -> None:
        known = settings_of(settings)
        self.differences = Differences()
        super().__init__(
            lambda: both_manager(known, answer, self.differences, read_from=read_from, runs_worker=runs_worker),
            answer,
            types,
        )


@asynccontextmanager
async def both_manager(
    settings: Settings,
    answer: Answer | None,
    differences: Differences,
    *,
    read_from: Literal["memory", "postgres"] | None = None,
    runs_worker: bool = True,
) -> AsyncIterator[Manager]:
    """Open a store, copy what it holds into memory, and open the asynchronous manager on both."""
    side = read_from or settings.read_from
    if side not in ("memory", "postgres"):
        raise SettingsError(f"read_from: {side!r:.80} is unknown: expected 'memory' or 'postgres'")
    async with EventStore(settings) as store, running_worker(store, runs_worker=runs_worker):
        server, memory = ServerLog(store), MemoryLog(store.tenant, settings.max_content_bytes)
        await copy(server, memory, [conversation_uuid(store.tenant, AGENTS)])
        reads_memory = side == "memory"
        main, other = (memory, server) if reads_memory else (server, memory)
        log = BothLog(main, other, differences)
        try:
            async with Manager(log, answer) as manager:
                yield manager
        finally:
            await log.pay_all()
