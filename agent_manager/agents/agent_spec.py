"""Agents named by a text: ``echo``, a URL, or a function; for the CLI and the setting ``EVENTSTORE_ANSWER``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from agent_manager.agents.agent import Answer
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.agents.local import echo, from_callable
from agent_manager.agents.remote import remote
from eventstore import Settings
from eventstore.errors import InputError, SettingsError
from eventstore.urls import show_name

CHOICES = "echo, the URL of an A2A agent, or package.module:function"


def agent_from_settings(settings: Settings) -> Answer | None:
    """Return the agent that the settings name (``EVENTSTORE_ANSWER``); None if they name none.

    Raises:
        SettingsError: there is no such agent, or a file with credentials cannot be used.
    """
    credentials = AgentCredentials.load(settings.agent_credentials)
    try:
        return agent_from_spec(settings.answer, credentials=credentials) if settings.answer else None
    except InputError as error:
        raise SettingsError(f"EVENTSTORE_ANSWER: {error}") from None


def agent_from_spec(spec: str, *, allow_private: bool = True, credentials: AgentCredentials | None = None) -> Answer:
    """Return the agent that a text names: :data:`CHOICES`.

    The function is one for :func:`~agent_manager.agents.local.from_callable`, or any
    :class:`~agent_manager.agents.agent.Answer`.

    Args:
        allow_private, credentials: see :func:`~agent_manager.agents.remote.remote`.

    Raises:
        SettingsError: there is no such agent.
    """
    if spec == "echo":
        return echo()
    if "://" in spec:
        return remote(spec, allow_private=allow_private, credentials=credentials)
    module, colon, path = spec.partition(":")
    if not (colon and path and all(part.isidentifier() for part in (*module.split("."), *path.split(".")))):
        raise SettingsError(f"the agent {show_name(spec)!r:.200} does not exist: expected {CHOICES}")
    return from_callable(_imported_function(spec, module, path))


def _imported_function(spec: str, module: str, path: str) -> Any:
    directory = str(Path.cwd())
    if directory not in sys.path:  # as 'python -m' does, so that a module of the working directory is found
        sys.path.insert(0, directory)
    try:
        value: Any = import_module(module)
    except ImportError as error:
        raise SettingsError(f"the agent {spec!r:.200}: {error}") from None
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise SettingsError(f"the agent {spec!r:.200}: {module} has no {path}") from None
    if not callable(value):
        raise SettingsError(f"the agent {spec!r:.200} is a {type(value).__name__}, expected a function")
    return value
