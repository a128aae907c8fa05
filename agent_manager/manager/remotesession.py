"""A session that is used from another event loop than the manager's."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from agent_manager.agents.answering import Context, Update
from agent_manager.manager.answers import Earlier, Outcome, Session
from agent_manager.manager.views import Accepted, Json
from eventstore.errors import StoreClosed
from eventstore.portal import Portal


class RemoteSession:
    """Has each step of the storing done in the manager's loop."""

    def __init__(self, portal: Portal, session: Session) -> None:
        self._portal = portal
        self._session = session

    @property
    def accepted(self) -> Accepted:
        """The message as its agent may be sent it."""
        return self._session.accepted

    @property
    def context(self) -> Context:
        """What the agent may know."""
        context = self._session.context

        async def history() -> list[Json]:
            async def read() -> list[Json]:
                return await context.history()

            return await self._portal.run(read())

        return replace(context, history=history)

    @property
    def earlier(self) -> Earlier | None:
        """What an earlier answering has left."""
        return self._session.earlier

    async def record(self, update: Update) -> None:
        """Store what the agent says, durably."""
        await self._portal.run(self._session.record(update))

    async def finish(self, outcome: Outcome, error: str | None) -> None:
        """Store the outcome: the message waits no longer."""
        await self._portal.run(self._session.finish(outcome, error))

    async def release(self) -> None:
        """Let others answer, if it was not finished. A manager that is closed has nobody waiting."""
        with suppress(StoreClosed):
            await self._portal.run(self._session.release())
