"""What answers a message: a function of the application's own, the echo agent, or a remote A2A agent."""

from agent_manager.agents.agent import Answer
from agent_manager.agents.agent import ArtifactUpdate
from agent_manager.agents.agent import Context
from agent_manager.agents.agent import Reply
from agent_manager.agents.agent import StatusUpdate
from agent_manager.agents.agent import TaskSeen
from agent_manager.agents.agent import Update
from agent_manager.agents.cards import InvalidAgentCard
from agent_manager.agents.cards import InvalidAgentUrl
from agent_manager.agents.cards import fetch_card
from agent_manager.agents.factory import choose
from agent_manager.agents.factory import chosen
from agent_manager.agents.errors import AgentError
from agent_manager.agents.errors import AgentLost
from agent_manager.agents.errors import AgentRefused
from agent_manager.agents.errors import AgentStalled
from agent_manager.agents.errors import AgentUnreachable
from agent_manager.agents.errors import AgentUnsupported
from agent_manager.agents.errors import InvalidUpdate
from agent_manager.agents.local import echo
from agent_manager.agents.local import from_callable
from agent_manager.agents.recorder import Recording
from agent_manager.agents.remote import remote
from agent_manager.a2a import task_to_wire

__all__ = [
    "AgentError",
    "AgentLost",
    "AgentRefused",
    "AgentStalled",
    "AgentUnreachable",
    "AgentUnsupported",
    "Answer",
    "ArtifactUpdate",
    "Context",
    "InvalidAgentCard",
    "InvalidAgentUrl",
    "InvalidUpdate",
    "Recording",
    "Reply",
    "StatusUpdate",
    "TaskSeen",
    "Update",
    "choose",
    "chosen",
    "echo",
    "fetch_card",
    "from_callable",
    "remote",
    "task_to_wire",
]
