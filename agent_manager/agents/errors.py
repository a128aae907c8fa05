"""What can go wrong with an agent, as one tree.

::

    AgentError                the agent did not answer, whatever the reason
    ├── AgentUnreachable      no connection to it, or no agent card at its URL
    ├── AgentLost             the connection broke in the middle of the answer
    ├── AgentStalled          it said nothing for too long, or did not come to an end
    ├── AgentRefused          it answered with an error of its own
    │   └── TaskUnknown       it does not know the task that it was asked about
    ├── InvalidUpdate         what it sent is no message, task or update
    └── AgentUnsupported      nothing here can talk to it: a2a-sdk is missing, or speaks another version
"""

from __future__ import annotations

from eventstore.errors import EventStoreError


class AgentError(EventStoreError):
    """The agent did not answer. What it had said before is kept."""


class AgentUnreachable(AgentError):
    """No connection to the agent could be made, or it has no agent card."""


class AgentLost(AgentError):
    """The connection broke in the middle of the answer."""


class AgentStalled(AgentError):
    """The agent said nothing for too long, or did not come to an end in time."""


class AgentRefused(AgentError):
    """The agent answered with an error.

    Attributes:
        code: of JSON-RPC, or HTTP's status; None where the agent gave none.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class TaskUnknown(AgentRefused):
    """The agent does not know the task that it was asked about."""


class InvalidUpdate(AgentError):
    """What the agent sent is no message, task or update."""


class AgentUnsupported(AgentError):
    """Nothing that is installed can talk to the agent."""
