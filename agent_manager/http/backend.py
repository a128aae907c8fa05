"""What the endpoints work with: the readers of one tenant, the manager, and what the server keeps between requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.http.bodies import Bodies
from agent_manager.http.counting import Counters
from agent_manager.http.demo.listing import Messages
from agent_manager.http.hub import Hub
from agent_manager.http.hurrying import Hurry
from agent_manager.http.looking import READ_TABLES, mark_of_log
from agent_manager.manager.core import AsyncManager
from agent_manager.manager.views import Accepted
from eventstore import AppendResult, EventStore
from eventstore.ending import end
from projections import ConversationCache, Reader, Search, Statistics

ANSWERING_SECONDS = 5.0
"""How long answers that are under way may still take when the server closes."""

_log = logging.getLogger(__name__)


class Backend:
    """One server's.

    Attributes:
        answering_seconds: how long answers that are under way may still take when the server closes. A message whose
            answer did not come stays pending, and the next start says so.
        closing: is set when the server closes; endless answers end then.
    """

    def __init__(self, store: EventStore, manager: AsyncManager) -> None:
        self.store = store
        self.manager = manager
        self.reader = Reader(store)
        self.search = Search(store)
        self.statistics = Statistics(store)
        self.cache = ConversationCache(self.reader)
        self.counters = Counters()
        self.bodies = Bodies()
        self.messages = Messages(self.reader)
        self.hub = Hub(store, store.tenant)
        self.closing = asyncio.Event()
        self._hurry = Hurry(store)
        self._written = 0
        self.answering_seconds = ANSWERING_SECONDS
        self._answering: set[asyncio.Task[Any]] = set()

    def wrote(self, result: AppendResult) -> None:
        """Notes what was appended."""
        self._written = max(self._written, result.position)

    @property
    def written(self) -> int:
        """The highest position that was appended through this server: reads hold it."""
        return max(self._written, self.manager.written)

    def answer(self, accepted: Accepted) -> None:
        """Has a message answered while the server goes on."""
        task = asyncio.create_task(self._answer(accepted))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, accepted: Accepted) -> None:
        try:
            await self.manager.answer(accepted)
        except Exception:
            # What an agent raises is stored as the outcome; this is the store itself. The message stays pending.
            _log.warning("the answer to message %s could not be stored", accepted.event_id, exc_info=True)

    async def caught_up(self, projections: Sequence[str] = READ_TABLES, at_least: int = 0) -> str:
        """What the tables of the projections hold, as a mark, once they hold what was written through this server.

        Raises:
            NotCaughtUp: they do not within the reader's time.
        """
        return await self._hurry.mark(projections, max(at_least, self.written), self.reader.timeout)

    async def read(
        self,
        request: Request,
        make: Callable[[], Awaitable[BaseModel]],
        *,
        projections: Sequence[str] = READ_TABLES,
        at_least: int | None = None,
    ) -> Response:
        """The answer to a read of the tables of some projections; not made anew where they are as they were."""
        mark = await self.caught_up(projections, at_least or 0)
        return await self.bodies.answer(request, mark, lambda: _body(make))

    async def read_log(
        self, request: Request, make: Callable[[], Awaitable[BaseModel]], *, mark: object = None
    ) -> Response:
        """The answer to a read of the log itself, which is as it was while the mark is: that of all if left out."""
        mark = await mark_of_log(self.store) if mark is None else mark
        return await self.bodies.answer(request, str(mark), lambda: _body(make))

    def close_streams(self) -> None:
        """Ends the endless answers."""
        self.closing.set()

    async def close(self) -> None:
        """Lets answers that are under way end."""
        self.closing.set()
        await self.hub.close()
        if self._answering:
            await asyncio.wait(self._answering, timeout=self.answering_seconds)
        await end(self._answering)
        await self._hurry.close()


async def _body(make: Callable[[], Awaitable[BaseModel]]) -> bytes:
    return (await make()).model_dump_json().encode()


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Here = Annotated[Backend, Depends(_backend)]
"""An endpoint's parameter."""
