"""Errors of managers and of agents.

::

    AnswerFailed              the agent failed; the failure is stored
    AnswerTaken               another process answers the message
    ManagerClosed             the manager is closed
    TaskNotCancelable         the task has ended, or its agent cannot cancel it
    RequestUnsupported        the agent does not support what was requested of it
    InvalidAgentUrl           a text is not the URL of an agent
    AgentError                the agent did not answer
    ├── AgentUnreachable      no connection, or no agent card at its URL
    ├── AgentLost             the connection broke during the answer
    ├── AgentStalled          a time limit expired
    ├── AgentRefused          the agent answered with an error
    │   └── TaskUnknown       the agent does not know the task
    ├── InvalidUpdate         what the agent sent is not a message, task or update
    ├── InvalidAgentCard      what the agent serves as its card is not a card
    └── AgentUnsupported      a2a-sdk is missing, or supports another version
"""

from __future__ import annotations

from eventstore.errors import ConflictError, EventStoreError, InputError, StoreClosed


class AnswerFailed(EventStoreError):
    """The agent failed. The failure, and what the agent sent before, is stored; the message is no longer pending."""


class AnswerTaken(EventStoreError):
    """Another process is answering the message, or has answered it. Nothing more is stored by this one."""


class ManagerClosed(StoreClosed):
    """The manager was closed, or was closed while it was used."""

    def __init__(self) -> None:
        InputError.__init__(self, "the manager is closed: open it again with initialize(), 'with' or 'async with'")


class TaskNotCancelable(ConflictError):
    """The task has ended, or its agent cannot cancel it."""


class RequestUnsupported(ConflictError):
    """The agent does not support what was requested of it."""


class InvalidAgentUrl(InputError):
    """A text is not the URL of an agent."""


class AgentError(EventStoreError):
    """The agent did not answer. What it sent before is stored."""


class AgentUnreachable(AgentError):
    """No connection to the agent could be made, or it serves no agent card."""


class AgentLost(AgentError):
    """The connection broke during the answer."""


class AgentStalled(AgentError):
    """The agent sent nothing for too long, or did not finish in time."""


class AgentRefused(AgentError):
    """The agent answered with an error.

    Attributes:
        code: the code of the JSON-RPC error, or the HTTP status; None if the agent sent neither.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class TaskUnknown(AgentRefused):
    """The agent does not know the task."""


class InvalidUpdate(AgentError):
    """The agent sent something other than a message, task or update."""


class InvalidAgentCard(AgentError):
    """The agent serves something other than an agent card as its card."""


class AgentUnsupported(AgentError):
    """Nothing that is installed can talk to the agent."""
