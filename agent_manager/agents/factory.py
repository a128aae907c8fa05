"""What answers, chosen by a word: for the command line and the setting ``EVENTSTORE_ANSWER``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from agent_manager.agents.agent import Answer
from agent_manager.agents.local import echo, from_callable
from agent_manager.agents.remote import remote
from eventstore import Settings
from eventstore.errors import InputError, SettingsError
from eventstore.urls import show_name

CHOICES = "echo, the URL of an A2A agent, or package.module:function"


def choose(spec: str, *, allow_private: bool = True) -> Answer:
    """Return what a text names: :data:`CHOICES`.

    The function is one for :func:`~agent_manager.agents.local.from_callable`, or any
    :class:`~agent_manager.agents.agent.Answer`.

    Args:
        allow_private: see :func:`~agent_manager.agents.remote.remote`.

    Raises:
        SettingsError: it names nothing.
    """
    if spec == "echo":
        return echo()
    if "://" in spec:
        return remote(spec, allow_private=allow_private)
    module, colon, path = spec.partition(":")
    if not (colon and path and all(part.isidentifier() for part in (*module.split("."), *path.split(".")))):
        raise SettingsError(f"what answers messages: {show_name(spec)!r:.200} is none: expected {CHOICES}")
    return from_callable(_found(spec, module, path))


def chosen(settings: Settings) -> Answer | None:
    """What the settings name (``EVENTSTORE_ANSWER``); None where they name nothing.

    Raises:
        SettingsError: they name what there is not.
    """
    try:
        return choose(settings.answer) if settings.answer else None
    except InputError as error:
        raise SettingsError(f"EVENTSTORE_ANSWER: {error}") from None


def _found(spec: str, module: str, path: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:  # as 'python -m' does: the function is the caller's own
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise SettingsError(f"what answers messages: {spec!r:.200}: {error}") from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise SettingsError(f"what answers messages: {spec!r:.200}: {module} has no {path}") from None
    if not callable(found):
        raise SettingsError(f"what answers messages: {spec!r:.200} is a {type(found).__name__}, expected a function")
    return found
