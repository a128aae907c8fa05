"""Conversations of A2A applications: managers, agents, importers, the HTTP server and the command line."""

TYPE_CHECKING = False  # typing, and what it imports, would take longer than all of this
if TYPE_CHECKING:
    from agent_manager.application import ApplicationManager
    from agent_manager.errors import AnswerFailed, ManagerClosed
    from agent_manager.factory import AsyncManager, application_manager, async_manager
    from eventstore import __version__ as __version__

__all__ = [
    "AnswerFailed",
    "ApplicationManager",
    "AsyncManager",
    "ManagerClosed",
    "application_manager",
    "async_manager",
]

_MODULES = {
    "AnswerFailed": "agent_manager.errors",
    "ApplicationManager": "agent_manager.application",
    "AsyncManager": "agent_manager.factory",
    "ManagerClosed": "agent_manager.errors",
    "__version__": "eventstore",
    "application_manager": "agent_manager.factory",
    "async_manager": "agent_manager.factory",
}


def __getattr__(name: str) -> object:
    """Import a name when it is used first: the command line, in this package, begins without them."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
