"""What answers a message: a function of the application's own, the echo agent, or a remote A2A agent."""

from agent_manager.a2a import task_to_wire
from agent_manager.agents.agent import Answer, ArtifactUpdate, Context, Reply, StatusUpdate, TaskSeen, Update
from agent_manager.agents.cards import InvalidAgentCard, InvalidAgentUrl, fetch_card
from agent_manager.agents.errors import (
    AgentError,
    AgentLost,
    AgentRefused,
    AgentStalled,
    AgentUnreachable,
    AgentUnsupported,
    InvalidUpdate,
)
from agent_manager.agents.factory import choose, chosen
from agent_manager.agents.local import echo, from_callable
from agent_manager.agents.recorder import Recording
from agent_manager.agents.remote import remote

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
