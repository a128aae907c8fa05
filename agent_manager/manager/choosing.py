"""Managers by one setting, ``EVENTSTORE_STORAGE``: synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeAlias

from agent_manager.agents.answering import Answer
from agent_manager.agents.choosing import choose
from agent_manager.agents.local import CallableAgent, from_callable
from agent_manager.agents.remote import RemoteAgent
from agent_manager.manager.both import BothManager, both_manager
from agent_manager.manager.contract import ApplicationManager
from agent_manager.manager.differences import Differences
from agent_manager.manager.manager import Manager
from agent_manager.manager.memory import MemoryManager, memory_manager
from agent_manager.manager.postgres import PostgreSQLManager, postgresql_manager, settings_of
from eventstore import Settings
from eventstore.errors import SettingsError

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
            :func:`~agent_manager.agents.choosing.choose`), or an agent of either; as the settings say
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
            manager = BothManager(known, answer=agent, types=types)
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
            return both_manager(known, agent, Differences())
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
    return choose(answer) if isinstance(answer, str) else from_callable(answer)
