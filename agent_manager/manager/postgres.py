"""The manager on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent_manager.agents.answering import Answer
from agent_manager.manager.contract import ApplicationManager
from agent_manager.manager.core import AsyncManager
from eventstore import EventStore, Settings
from eventstore.errors import SettingsError


class PostgreSQLManager(ApplicationManager):
    """See :class:`ApplicationManager`.

    Args:
        settings: which server, which tenant; or the server's URL. From the environment and ``.env`` if left out.
        runs_worker: whether to keep the read tables up meanwhile; ``eventstore up`` does so already.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        answer: Answer | None = None,
        types: Any = None,
        runs_worker: bool = True,
    ) -> None:
        known = settings_of(settings)
        super().__init__(lambda: postgresql_manager(known, answer, runs_worker=runs_worker), answer, types)


@asynccontextmanager
async def postgresql_manager(
    settings: Settings, answer: Answer | None, *, runs_worker: bool = True
) -> AsyncIterator[AsyncManager]:
    """Open a store and the asynchronous manager on it."""
    async with (
        EventStore(settings) as store,
        AsyncManager(store, answer=answer, runs_worker=runs_worker) as manager,
    ):
        yield manager


def settings_of(given: Settings | str | None) -> Settings:
    """Return settings: as given, of a URL, or of the environment if none are given.

    Raises:
        SettingsError: they are neither, or a setting has a value that cannot be used.
    """
    if not isinstance(given, Settings | str | None):
        raise SettingsError(f"settings: a {type(given).__name__} is given, expected Settings or the URL of a server")
    return Settings(database_url=given) if isinstance(given, str) else given or Settings()
