"""The client of a2a-sdk, whichever version is installed: the only place that imports it."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from agent_manager.a2a import Json
from agent_manager.agents.errors import (
    AgentError,
    AgentLost,
    AgentRefused,
    AgentStalled,
    AgentUnreachable,
    AgentUnsupported,
    InvalidUpdate,
)
from eventstore.errors import EventStoreError, printable

if TYPE_CHECKING:
    import httpx


# Imports of a2a-sdk, which is imported nowhere else and only when a remote agent is used

TYPES = "a2a.types"

_lock = Lock()
_ours: set[str] = set()


def sdk_module(name: str) -> ModuleType:
    """Import a module of a2a-sdk or of what it depends on, and note whether the application had imported it before."""
    with _lock:
        was_imported = TYPES in sys.modules
        module = import_module(name)
        if not was_imported and TYPES in sys.modules:
            _ours.add(TYPES)
    return module


def is_imported_by_application() -> bool:
    """Return whether something other than :func:`sdk_module` has imported ``a2a.types`` first."""
    return TYPES in sys.modules and TYPES not in _ours


# What httpx and a2a-sdk raise, as errors of :mod:`agent_manager.agents.errors`

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


# What both versions of a2a-sdk's client are used for here, and which of them is installed

PROTOCOLS = ("JSONRPC", "HTTP+JSON")
"""The transports that are used, as agent cards call them."""


class SdkClient(Protocol):
    """Talks to one agent."""

    def send(self, message: Json, *, streaming: bool) -> AsyncGenerator[Json, None]:
        """Sends a message in any shape and gives the updates, as JSON on the wire, while they come."""
        ...

    async def task(self, task_id: str) -> Json:
        """A task of the agent's as it is now."""
        ...

    def resubscribe(self, task_id: str) -> AsyncGenerator[Json, None]:
        """Listen again to the updates of a task that the agent is working on, from now on."""
        ...


def open_client(card: Json, http: httpx.AsyncClient) -> SdkClient:
    """A client of the agent that the card describes.

    Raises:
        AgentUnsupported: a2a-sdk is not installed, or it cannot talk to the agent.
    """
    try:
        version = metadata.version("a2a-sdk")
    except metadata.PackageNotFoundError:
        raise AgentUnsupported(
            "talking to a remote agent takes a2a-sdk: pip install 'flowagents-eventstore[a2a]'"
        ) from None
    module = import_module(f"agent_manager.agents.{'v0_3' if version.startswith('0.') else 'v1'}")
    client: SdkClient = module.Client(card, http)
    return client
