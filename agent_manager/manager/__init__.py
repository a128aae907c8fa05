"""The agent manager: conversations of an A2A application, kept in memory, in PostgreSQL, or in both."""

from agent_manager.manager.both import BothManager
from agent_manager.manager.choosing import application_manager, async_manager
from agent_manager.manager.contract import ApplicationManager
from agent_manager.manager.core import AsyncManager
from agent_manager.manager.differences import Difference, Differences
from agent_manager.manager.errors import AnswerFailed, ManagerClosed
from agent_manager.manager.memory import MemoryManager
from agent_manager.manager.postgres import PostgreSQLManager
from agent_manager.manager.views import Accepted, ConversationView, EventView, Pending

__all__ = [
    "Accepted",
    "AnswerFailed",
    "ApplicationManager",
    "AsyncManager",
    "BothManager",
    "ConversationView",
    "Difference",
    "Differences",
    "EventView",
    "ManagerClosed",
    "MemoryManager",
    "Pending",
    "PostgreSQLManager",
    "application_manager",
    "async_manager",
]
