"""A session that is used from another event loop than the manager's."""

from __future__ import annotations

from contextlib import suppress

from agent_manager.agents.answering import Update
from agent_manager.manager.answers import Outcome, Session
from eventstore.errors import StoreClosed
from eventstore.portal import Portal


class RemoteSession:
    """Has each step of the storing done in the manager's loop."""

    def __init__(self, portal: Portal, session: Session) -> None:
        self._portal = portal
        self._session = session

    async def record(self, update: Update) -> None:
        """Stores what the agent says, durably."""
        await self._portal.run(self._session.record(update))

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """The message waits no longer."""
        await self._portal.run(self._session.finish(outcome, error))

    async def release(self) -> None:
        """Lets others answer, where it was not finished. A manager that is closed has nobody waiting."""
        with suppress(StoreClosed):
            await self._portal.run(self._session.release())
