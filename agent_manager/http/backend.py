"""What one server works with, and what it keeps between requests."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from agent_manager.http.asking import Gate, Identifies
from agent_manager.http.bodies import Bodies
from agent_manager.http.counting import Counters
from agent_manager.http.demo.summaries import SummaryCache
from agent_manager.http.desks import Desk, Desks
from agent_manager.http.hurrying import Hurry
from agent_manager.http.idempotency import Idempotency
from agent_manager.http.limits import Limits
from agent_manager.http.sealing import Sealing
from agent_manager.manager.core import AsyncManager
from agent_manager.manager.views import Accepted
from eventstore import EventStore
from eventstore.ending import end
from projections import Reader

ANSWERING_SECONDS = 5.0
"""How long answers that are under way may still take when the server closes."""

_log = logging.getLogger(__name__)


class Backend:
    """One server's.

    Args:
        manager: of the store's own tenant.
        gatekeeper: tells who bears a token.
        sealing: seals what callers may keep but not read.
        requires_tokens: whether nobody may ask without one.
        allows_private: whether agents' cards may be fetched from addresses that are not global.

    Attributes:
        reader: of the store's own tenant; its timeout is everybody's.
        answering_seconds: how long answers that are under way may still take when the server closes. A message whose
            answer did not come stays pending, and the next start says so.
        closing: is set when the server closes; endless answers end then.
    """

    def __init__(
        self,
        store: EventStore,
        manager: AsyncManager,
        gatekeeper: Identifies,
        sealing: Sealing,
        *,
        requires_tokens: bool,
        allows_private: bool = True,
    ) -> None:
        self.store = store
        self.gate = Gate(gatekeeper, store.tenant, requires_tokens=requires_tokens)
        self.sealing = sealing
        self.limits = Limits(store.settings)
        self.allows_private = allows_private
        self.counters = Counters()
        self.desks = Desks(store, manager, self._count_answers)
        self.reader = Reader(store)
        self.bodies = Bodies(store.settings.answer_bytes, store.settings.request_seconds)
        self.summaries = SummaryCache()
        self.closing = asyncio.Event()
        self.hurry = Hurry(store)
        self.idempotency = Idempotency(store)
        self.answering_seconds = ANSWERING_SECONDS
        self._answering: set[asyncio.Task[Any]] = set()

    def answer(self, desk: Desk, accepted: Accepted) -> None:
        """Has a message answered while the server goes on."""
        task = asyncio.create_task(self._answer(desk, accepted))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, desk: Desk, accepted: Accepted) -> None:
        try:
            with desk.in_use():
                await desk.manager.answer(accepted)
        except Exception:
            # What an agent raises is stored as the outcome; this is the store itself. The message stays pending.
            _log.warning("the answer to message %s could not be stored", accepted.event_id, exc_info=True)

    def _count_answers(self, tenant: str, events: int) -> None:
        """Count what answers append for a tenant: it cannot be refused, but what is requested next can."""
        if self.gate.requires_tokens:
            self.limits.events.spend([tenant], events)

    def close_streams(self) -> None:
        """Ends the endless answers."""
        self.closing.set()

    async def close(self) -> None:
        """Lets answers that are under way end."""
        self.closing.set()
        if self._answering:
            await asyncio.wait(self._answering, timeout=self.answering_seconds)
        await end(self._answering)
        await self.desks.close()
        await self.hurry.close()
