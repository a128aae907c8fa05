"""Which manager: one setting, ``EVENTSTORE_STORAGE``, tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from agent_manager.agents.answering import Answer
from agent_manager.agents.choosing import choose
from agent_manager.agents.local import CallableAgent, from_callable
from agent_manager.agents.remote import RemoteAgent
from agent_manager.manager.both import BothManager
from agent_manager.manager.contract import ApplicationManager
from agent_manager.manager.memory import MemoryManager
from agent_manager.manager.postgres import PostgreSQLManager, settings_of
from eventstore import Settings


def application_manager(
    settings: Settings | str | None = None,
    *,
    storage: Literal["memory", "postgres", "both"] | None = None,
    answer: Callable[..., Any] | str | None = None,
    types: Any = None,
) -> ApplicationManager:
    """The manager of an A2A application, open::

        self.manager = application_manager(answer=my_agent)

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
        case _:
            manager = PostgreSQLManager(known, answer=agent, types=types)
    manager.initialize()
    return manager


def agent_of(answer: Callable[..., Any] | str | None) -> Answer | None:
    """What answers, of a function, a text or an agent."""
    if answer is None or isinstance(answer, CallableAgent | RemoteAgent):
        return answer
    return choose(answer) if isinstance(answer, str) else from_callable(answer)
