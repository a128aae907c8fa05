"""What httpx and a2a-sdk raise, as errors of :mod:`agent_manager.agents.errors`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent_manager.agents.errors import (
    AgentError,
    AgentLost,
    AgentRefused,
    AgentStalled,
    AgentUnreachable,
    InvalidUpdate,
)
from eventstore.errors import EventStoreError, printable

TASK_NOT_FOUND = -32001
"""A2A's code of JSON-RPC for a task that the agent does not know."""


@contextmanager
def translated(who: str) -> Iterator[None]:
    """Turns whatever goes wrong while an agent is talked to into an :class:`AgentError` that names it."""
    try:
        yield
    except InvalidUpdate as error:
        raise InvalidUpdate(f"{who}: {error}") from error.__cause__
    except EventStoreError:
        raise
    except Exception as error:
        raise agent_error(error, who) from error


def agent_error(error: Exception, who: str) -> AgentError:
    """The error that tells what an exception means for the agent's caller."""
    import httpx  # see agents/cards.py

    text = printable(f"{type(error).__name__}: {error}")
    for cause in _chain(error):
        if isinstance(cause, httpx.HTTPStatusError):
            code = cause.response.status_code
            return AgentRefused(f"{who}: answered with the HTTP status {code}", code)
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol | httpx.InvalidURL):
            return AgentUnreachable(f"{who}: cannot be reached: {printable(str(cause)) or type(cause).__name__}")
        if isinstance(cause, httpx.TimeoutException):
            return AgentStalled(f"{who}: {text}")
        if isinstance(cause, httpx.TransportError) and type(cause).__name__ != "SSEError":
            return AgentLost(f"{who}: the connection broke while it answered: {printable(str(cause))}")
    if (refused := _refusal(error, who)) is not None:
        return refused
    return InvalidUpdate(f"{who}: what it sent cannot be understood: {text}")


def _refusal(error: Exception, who: str) -> AgentRefused | None:
    """An error of JSON-RPC: in 0.3 the exception holds it, in 1.x most codes have a class, the others a text only."""
    inner: Any = getattr(error, "error", None)
    if isinstance(code := getattr(inner, "code", None), int):
        return AgentRefused(f"{who}: {printable(str(inner.message))} (error {code})", code)
    names = [kind.__name__ for kind in type(error).__mro__]
    is_sdk = "A2AError" in names and error.__cause__ is None and not str(error).startswith("Invalid JSON-RPC")
    code = TASK_NOT_FOUND if "TaskNotFoundError" in names else None
    return AgentRefused(f"{who}: {printable(str(error))}", code) if is_sdk else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
