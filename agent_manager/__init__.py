"""What applications and people touch: managers of conversations, imports, the HTTP API, the command line."""

from agent_manager.manager import (
    AnswerFailed,
    ApplicationManager,
    AsyncManager,
    ManagerClosed,
    application_manager,
    async_manager,
)

__all__ = [
    "AnswerFailed",
    "ApplicationManager",
    "AsyncManager",
    "ManagerClosed",
    "application_manager",
    "async_manager",
]
