"""Agents that answer messages: a function of the application, the echo agent, or a remote A2A agent."""

from agent_manager.a2a import task_to_wire
from agent_manager.agents.agent import (
    Answer,
    ArtifactUpdate,
    Context,
    Reply,
    ReplyChunk,
    StatusUpdate,
    TaskSnapshot,
    Update,
)
from agent_manager.agents.agent_spec import agent_from_settings, agent_from_spec
from agent_manager.agents.cards import fetch_card
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.agents.local import echo, from_callable
from agent_manager.agents.recorder import Recording
from agent_manager.agents.remote import remote
from agent_manager.errors import (
    AgentError,
    AgentLost,
    AgentRefused,
    AgentStalled,
    AgentUnreachable,
    AgentUnsupported,
    InvalidAgentCard,
    InvalidAgentUrl,
    InvalidUpdate,
)

__all__ = [
    "AgentCredentials",
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
    "ReplyChunk",
    "StatusUpdate",
    "TaskSnapshot",
    "Update",
    "agent_from_settings",
    "agent_from_spec",
    "echo",
    "fetch_card",
    "from_callable",
    "remote",
    "task_to_wire",
]
