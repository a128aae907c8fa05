"""Managers in PostgreSQL, in memory, or in both, chosen by EVENTSTORE_STORAGE.

Whatever is read is read from both and compared; what differs is counted, kept for a report, and logged. The side that
is read from decides: where the other fails, that is counted, what it lacks is owed to it, and given before anything
else of the same conversation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import copy
from typing import Any, Literal, Self, TypeAlias

from agent_manager.agent_registry import AGENTS, Registry
from agent_manager.agents.agent import Answer
from agent_manager.agents.agent_spec import agent_from_spec
from agent_manager.agents.local import CallableAgent, from_callable
from agent_manager.agents.remote import RemoteAgent
from agent_manager.application import ApplicationManager
from agent_manager.conversation_cache import MAX_BYTES, Sees, VisibleConversations
from agent_manager.dual_write import Differences, DualWriteLog, copy_log
from agent_manager.manager import Manager
from agent_manager.memory_storage import MemoryLog
from agent_manager.storage import AppendedPositions, ServerLog, UserLog
from agent_manager.writer import Writer
from eventstore import EventStore, Settings, conversation_uuid
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import SettingsError
from projections import Worker, load

# The manager in memory: gone when the process ends


class MemoryManager(ApplicationManager):
    """See :class:`ApplicationManager`."""

    def __init__(self, *, tenant: str = "default", answer: Answer | None = None, types: Any = None) -> None:
        super().__init__(lambda: memory_manager(tenant, answer), answer, types)


def memory_manager(tenant: str, answer: Answer | None) -> Manager:
    """Return the asynchronous manager in memory."""
    return Manager(MemoryLog(tenant), answer)


# The manager on PostgreSQL, for the coroutines of one event loop


class AsyncManager(Manager):
    """Conversations in PostgreSQL.

    Args:
        store: open.
        tenant: the store's own if left out.
        answer: what answers messages; None says nothing.
        runs_worker: whether to keep the read tables up meanwhile; ``eventstore up`` does so already.
        fold_bytes: of contents that it keeps folded, about.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        tenant: str | None = None,
        answer: Answer | None = None,
        runs_worker: bool = True,
        fold_bytes: int = MAX_BYTES,
    ) -> None:
        self._server = ServerLog(store, tenant)
        super().__init__(self._server, answer, fold_bytes)
        self.store = store
        self._runs_worker = runs_worker
        self._stack = AsyncExitStack()

    def acting_for(
        self, user: str | None, actor: str, sees: Sees, count: Callable[[int], None] = lambda events: None
    ) -> Manager:
        """The same manager, as a user works with it.

        Of the tenant's conversations it has those that the user sees. What is begun is the user's own, and nothing is
        written where the user may not write: that raises Forbidden. Answers are not for it to give.

        Args:
            user: None is the whole tenant.
            actor: who causes what is written; empty leaves it to the manager to say.
            sees: says which conversations the user may see; not asked for the whole tenant.
            count: called with the number of events of each append.
        """
        if user is None and not actor:
            return self
        same = copy(self)
        same._log = log = UserLog(self._server, user, actor, count)
        same._folds = folds = self._folds if user is None else VisibleConversations(self._folds, sees)
        same._writer = Writer(log, folds)
        same._registry = Registry(log, self._folds)
        return same

    def count_with(self, count: Callable[[int], None]) -> None:
        """Have a function called with the number of events of each append, those of answers included."""
        self._server.count = count

    @property
    def written(self) -> AppendedPositions:
        """What it has appended."""
        return self._server.written

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(running_worker(self.store, runs_worker=self._runs_worker))
        return await super().__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self._stack.aclose()


@asynccontextmanager
async def running_worker(store: EventStore, *, runs_worker: bool) -> AsyncIterator[None]:
    """Keeps the read tables up meanwhile, if it is to."""
    if not runs_worker:
        yield
        return
    worker = asyncio.create_task(Worker(store, load(store.settings.projections)).run())
    try:
        yield
    finally:
        await cancel_and_wait((worker,))


# The manager on PostgreSQL


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


# The manager of the transition: every write goes to PostgreSQL and into memory, reads come from one


class DualWriteManager(ApplicationManager):
    """See :class:`ApplicationManager`.

    What PostgreSQL holds is copied into memory when it opens.

    Args:
        settings: as for :class:`~agent_manager.factory.PostgreSQLManager`.
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
            lambda: dual_write_manager(known, answer, self.differences, read_from=read_from, runs_worker=runs_worker),
            answer,
            types,
        )


@asynccontextmanager
async def dual_write_manager(
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
        await copy_log(server, memory, [conversation_uuid(store.tenant, AGENTS)])
        reads_memory = side == "memory"
        main, other = (memory, server) if reads_memory else (server, memory)
        log = DualWriteLog(main, other, differences)
        try:
            async with Manager(log, answer) as manager:
                yield manager
        finally:
            await log.pay_all()


# Managers by one setting, EVENTSTORE_STORAGE: synchronous and asynchronous

Storage: TypeAlias = Literal["memory", "postgres", "both"]


def application_manager(
    settings: Settings | str | None = None,
    *,
    storage: Storage | None = None,
    answer: Callable[..., Any] | str | None = None,
    types: Any = None,
) -> ApplicationManager:
    """Return the synchronous manager of an A2A application, open::

        self.manager = application_manager(answer=my_agent)

    Code that runs in an event loop uses :func:`async_manager`.

    Args:
        settings: which server, which tenant; or the server's URL. From the environment and ``.env`` if left out.
        storage: ``memory``, ``postgres`` or ``both``; as the settings say (``EVENTSTORE_STORAGE``) if left out.
        answer: what answers messages: a function (see :func:`~agent_manager.agents.local.from_callable`), a text (see
            :func:`~agent_manager.agents.agent_spec.agent_from_spec`), or an agent of either; as the settings say
            (``EVENTSTORE_ANSWER``) if left out, and nothing where they say nothing.
        types: the module with the application's classes; what it has imported already if left out.

    Raises:
        SettingsError: a setting has a value that cannot be used.
        ServerError, SchemaError: there is no server to use, or its schema does not fit.
    """
    known = settings_of(settings)
    agent = agent_of(answer if answer is not None else known.answer or None)
    manager: ApplicationManager
    match storage or known.storage:
        case "memory":
            manager = MemoryManager(tenant=known.tenant, answer=agent, types=types)
        case "both":
            manager = DualWriteManager(known, answer=agent, types=types)
        case "postgres":
            manager = PostgreSQLManager(known, answer=agent, types=types)
        case other:
            raise _unknown(other)
    manager.initialize()
    return manager


def async_manager(
    settings: Settings | str | None = None,
    *,
    storage: Storage | None = None,
    answer: Callable[..., Any] | str | None = None,
) -> AbstractAsyncContextManager[Manager]:
    """Open the asynchronous manager, for the coroutines of one event loop::

        async with async_manager(answer=my_agent) as manager:
            reply = await manager.send_message("trip", {"role": "user", "parts": [{"text": "A train to Lisbon?"}]})

    Messages, tasks and cards are plain JSON as on the wire. Agents run in the same event loop: one that blocks it
    blocks the manager, too.

    Args:
        settings, storage, answer: as for :func:`application_manager`.

    Raises:
        SettingsError: a setting has a value that cannot be used.
        ServerError, SchemaError: on entering; there is no server to use, or its schema does not fit.
    """
    known = settings_of(settings)
    agent = agent_of(answer if answer is not None else known.answer or None)
    match storage or known.storage:
        case "memory":
            return memory_manager(known.tenant, agent)
        case "both":
            return dual_write_manager(known, agent, Differences())
        case "postgres":
            return postgresql_manager(known, agent)
        case other:
            raise _unknown(other)


def _unknown(storage: object) -> SettingsError:
    return SettingsError(f"storage: {storage!r:.80} is unknown: expected 'memory', 'postgres' or 'both'")


def agent_of(answer: Callable[..., Any] | str | None) -> Answer | None:
    """What answers, of a function, a text or an agent."""
    if answer is None or isinstance(answer, CallableAgent | RemoteAgent):
        return answer
    return agent_from_spec(answer) if isinstance(answer, str) else from_callable(answer)
