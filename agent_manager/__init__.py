"""Conversations of A2A applications: managers, agents, importers, the HTTP server and the command line."""

from agent_manager.application import ApplicationManager
from agent_manager.errors import AnswerFailed, ManagerClosed
from agent_manager.factory import AsyncManager, application_manager, async_manager

__all__ = [
    "AnswerFailed",
    "ApplicationManager",
    "AsyncManager",
    "ManagerClosed",
    "application_manager",
    "async_manager",
]
