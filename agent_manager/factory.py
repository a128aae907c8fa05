"""Managers of the three storages: PostgreSQL, memory, or both; chosen by the setting ``EVENTSTORE_STORAGE``.

:func:`application_manager` is for synchronous applications, :func:`async_manager` for code in an event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import copy
from functools import partial
from typing import Any, Literal, Self, TypeAlias

from agent_manager.agent_registry import AGENTS, AgentRegistry
from agent_manager.agents.agent import Answer
from agent_manager.agents.agent_spec import agent_from_spec
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.agents.local import CallableAgent, from_callable
from agent_manager.agents.remote import RemoteAgent
from agent_manager.answering import Answers
from agent_manager.application import ApplicationManager
from agent_manager.conversation_cache import MAX_BYTES, VisibleConversations, VisibleIds
from agent_manager.dual_write import Differences, DualWriteLog, copy_log
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import AppendedPositions, ServerLog
from agent_manager.task_requests import TaskRequests
from agent_manager.writer import Writer
from eventstore import EventStore, Settings, conversation_uuid
from eventstore.concurrency import cancel_and_wait, independent_task
from eventstore.errors import SettingsError
from projections import Worker, load_projections

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
        settings: the settings, or the URL of the server. By default from the environment and ``.env``.
        storage: ``memory``, ``postgres`` or ``both``; by default that of the settings (``EVENTSTORE_STORAGE``).
        answer: the agent that answers messages: a function (see :func:`~agent_manager.agents.local.from_callable`), a
            text (see :func:`~agent_manager.agents.agent_spec.agent_from_spec`), or an agent of either; by default that
            of the settings (``EVENTSTORE_ANSWER``). Without one, messages get no reply.
        types: the module with the application's classes; by default one that it has imported already.

    Raises:
        SettingsError: a setting has a value that cannot be used.
        ServerError, SchemaError: there is no server, or its schema does not fit.
    """
    settings = _settings_of(settings)
    credentials = AgentCredentials.load(settings.agent_credentials)
    agent = _agent(answer, settings, credentials)
    differences = Differences()
    open_manager = partial(_open_manager, settings, storage, agent, credentials, differences)
    manager = ApplicationManager(open_manager, types, differences)
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

    Messages, tasks and cards are plain wire JSON. Agents run in the same event loop: one that blocks it blocks the
    manager, too.

    Args:
        settings, storage, answer: as for :func:`application_manager`.

    Raises:
        SettingsError: a setting has a value that cannot be used.
        ServerError, SchemaError: on entering; there is no server, or its schema does not fit.
    """
    settings = _settings_of(settings)
    credentials = AgentCredentials.load(settings.agent_credentials)
    return _open_manager(settings, storage, _agent(answer, settings, credentials), credentials, Differences())


def _settings_of(settings: Settings | str | None) -> Settings:
    if not isinstance(settings, Settings | str | None):
        kind = type(settings).__name__
        raise SettingsError(f"settings: a {kind} is given, expected Settings or the URL of a server")
    return Settings(database_url=settings) if isinstance(settings, str) else settings or Settings()


def _agent(answer: Callable[..., Any] | str | None, settings: Settings, credentials: AgentCredentials) -> Answer | None:
    answer = answer if answer is not None else settings.answer or None
    if answer is None or isinstance(answer, CallableAgent | RemoteAgent):
        return answer
    return agent_from_spec(answer, credentials=credentials) if isinstance(answer, str) else from_callable(answer)


def _open_manager(
    settings: Settings,
    storage: Storage | None,
    agent: Answer | None,
    credentials: AgentCredentials,
    differences: Differences,
) -> AbstractAsyncContextManager[Manager]:
    match storage or settings.storage:
        case "memory":
            return Manager(MemoryLog(settings.tenant), agent, credentials=credentials)
        case "both":
            return _dual_write_manager(settings, agent, credentials, differences)
        case "postgres":
            return _postgresql_manager(settings, agent, credentials)
        case other:
            raise SettingsError(f"storage: {other!r:.80} is unknown: expected 'memory', 'postgres' or 'both'")


class AsyncManager(Manager):
    """An asynchronous manager on PostgreSQL, for the coroutines of one event loop.

    Args:
        store: an open store.
        tenant: the tenant; by default the store's.
        answer: the agent that answers messages; without one, messages get no reply.
        runs_worker: whether to update the read tables meanwhile; ``eventstore up`` does so already.
        fold_bytes: approximate size of the contents of cached conversations.
        credentials: the credentials with which the cards of registered agents are fetched.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        tenant: str | None = None,
        answer: Answer | None = None,
        runs_worker: bool = True,
        fold_bytes: int = MAX_BYTES,
        credentials: AgentCredentials | None = None,
    ) -> None:
        self._server = ServerLog(store, tenant)
        super().__init__(self._server, answer, fold_bytes, credentials)
        self.store = store
        self._runs_worker = runs_worker
        self._stack = AsyncExitStack()

    def acting_for(
        self, user: str | None, actor: str, visible_ids: VisibleIds, count: Callable[[int], None] = lambda events: None
    ) -> Manager:
        """Return the same manager with the permissions of a user.

        It contains the conversations that the user may see. New conversations are the user's own, and appends that the
        user lacks permission for raise Forbidden. It cannot store answers.

        Args:
            user: None for the whole tenant.
            actor: the actor of all appended events; empty for the manager's own choice.
            visible_ids: returns which conversations the user may see; not called for the whole tenant.
            count: called with the number of events of each append.
        """
        if user is None and not actor:
            return self
        manager = copy(self)
        manager._log = log = self._server.acting_for(user, actor, count)
        manager._cache = cache = self._cache if user is None else VisibleConversations(self._cache, visible_ids)
        manager._writer = Writer(log, cache)
        manager._registry = registry = AgentRegistry(log, self._cache, self._credentials)
        manager.answers = Answers(log, cache, manager._writer, registry)
        manager.task_requests = TaskRequests(log, cache, self._writer, self.agent)
        return manager

    def count_with(self, count: Callable[[int], None]) -> None:
        """Set a function that is called with the number of events of each append, including those of answers."""
        self._server.count = count

    @property
    def written(self) -> AppendedPositions:
        """The positions that were appended through this manager."""
        return self._server.written

    async def __aenter__(self) -> Self:
        if self._runs_worker:
            await self._stack.enter_async_context(_running_worker(self.store))
        return await super().__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self._stack.aclose()


@asynccontextmanager
async def _postgresql_manager(
    settings: Settings, answer: Answer | None, credentials: AgentCredentials
) -> AsyncIterator[AsyncManager]:
    async with EventStore(settings) as store, AsyncManager(store, answer=answer, credentials=credentials) as manager:
        yield manager


@asynccontextmanager
async def _dual_write_manager(
    settings: Settings, answer: Answer | None, credentials: AgentCredentials, differences: Differences
) -> AsyncIterator[Manager]:
    """Open a manager that writes to PostgreSQL and memory; the contents of PostgreSQL are copied into memory first."""
    async with EventStore(settings) as store, _running_worker(store):
        server, memory = ServerLog(store), MemoryLog(store.tenant, settings.max_content_bytes)
        await copy_log(server, memory, [conversation_uuid(store.tenant, AGENTS)])
        main, other = (memory, server) if settings.read_from == "memory" else (server, memory)
        log = DualWriteLog(main, other, differences)
        try:
            async with Manager(log, answer, credentials=credentials) as manager:
                yield manager
        finally:
            await log.append_all_missing()


@asynccontextmanager
async def _running_worker(store: EventStore) -> AsyncIterator[None]:
    worker = independent_task(Worker(store, load_projections(store.settings.projections)).run())
    try:
        yield
    finally:
        await cancel_and_wait((worker,))
