"""Clients of remote A2A agents, on a2a-sdk 0.3 or 1.x, whichever is installed.

a2a-sdk is imported nowhere else, and only when a remote agent is used. Its modules are imported by name, so that type
checks do not depend on the installed version.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module, metadata
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agent_manager.a2a import Json, message_in_version
from agent_manager.errors import (
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

TYPES = "a2a.types"
TASK_NOT_FOUND = -32001
"""A2A's JSON-RPC code for a task that the agent does not know."""

_TRANSPORTS = {"JSONRPC": ("jsonrpc", "JsonRpcTransport"), "HTTP+JSON": ("rest", "RestTransport")}
"""Supported transports by their names in agent cards: module and class in a2a-sdk 0.3."""

_import_lock = Lock()
_imported_here: set[str] = set()


def open_client(card: Json, http: httpx.AsyncClient) -> ClientV03 | ClientV1:
    """Return a client of the agent that a card describes.

    Raises:
        AgentUnsupported: a2a-sdk is not installed, or cannot talk to the agent.
    """
    try:
        version = metadata.version("a2a-sdk")
    except metadata.PackageNotFoundError:
        raise AgentUnsupported(
            "talking to a remote agent takes a2a-sdk: pip install 'flowagents-eventstore[a2a]'"
        ) from None
    return ClientV03(card, http) if version.startswith("0.") else ClientV1(card, http)


class ClientV03:
    """A client of one agent, on the transports of a2a-sdk 0.3, which yield each update as it came.

    The SDK's own client merges updates into one task and fails on an agent that sends two.
    """

    def __init__(self, card: Json, http: httpx.AsyncClient) -> None:
        module, transport, url = _interface(card)
        self._types = sdk_module(TYPES)
        self._transport = getattr(sdk_module(f"a2a.client.transports.{module}"), transport)(http, url=url)

    async def send(self, message: Json, *, streaming: bool) -> AsyncGenerator[Json, None]:
        """Send a message of either A2A version and yield the updates, as wire JSON, as they arrive."""
        types = self._types
        params = types.MessageSendParams(
            message=types.Message.model_validate(message_in_version(message, "0.3")),
            configuration=types.MessageSendConfiguration(blocking=True),
        )
        if not streaming:
            yield self._json(await self._transport.send_message(params))
            return
        async for update in self._transport.send_message_streaming(params):
            yield self._json(update)

    async def task(self, task_id: str) -> Json:
        """Return the current state of a task."""
        return self._json(await self._transport.get_task(self._types.TaskQueryParams(id=task_id)))

    async def resubscribe(self, task_id: str) -> AsyncGenerator[Json, None]:
        """Yield further updates of a task that the agent is working on."""
        async for update in self._transport.resubscribe(self._types.TaskIdParams(id=task_id)):
            yield self._json(update)

    @staticmethod
    def _json(update: Any) -> Json:
        wire: Json = update.model_dump(mode="json", by_alias=True, exclude_none=True)
        return wire


def _interface(card: Json) -> tuple[str, str, str]:
    """Return the SDK's module and class, and the URL, for the first interface of a card that can be used."""
    additional, supported = card.get("additionalInterfaces") or [], card.get("supportedInterfaces") or []
    interfaces = [
        (card.get("preferredTransport") or "JSONRPC", card.get("url")),
        *((entry.get("transport"), entry.get("url")) for entry in additional if isinstance(entry, dict)),
        *(
            (entry.get("protocolBinding"), entry.get("url"))
            for entry in supported
            if isinstance(entry, dict) and str(entry.get("protocolVersion", "")).startswith("0.3")
        ),
    ]
    for protocol, url in interfaces:
        if protocol in list(_TRANSPORTS) and isinstance(url, str) and url:
            return *_TRANSPORTS[protocol], url
    newer = " of version 0.3; newer ones take a2a-sdk 1.0 or later" if "supportedInterfaces" in card else ""
    raise _no_interface(card.get("name"), newer)


class ClientV1:
    """A client of one agent, on the client of a2a-sdk 1.x, which talks to agents of 0.3 too: see :class:`ClientV03`."""

    def __init__(self, card: Json, http: httpx.AsyncClient) -> None:
        self._types = sdk_module(TYPES)
        self._json_format = sdk_module("google.protobuf.json_format")
        parse = sdk_module("a2a.client.card_resolver").parse_agent_card
        try:
            self._card = parse(deepcopy(card))
        except (self._json_format.ParseError, ValueError) as error:
            raise AgentUnsupported(f"the card of {card.get('name') or 'the agent'} cannot be read: {error}") from None
        self._http = http
        self._client(streaming=True)  # raises now, not at the first message, if the card offers no usable interface

    async def send(self, message: Json, *, streaming: bool) -> AsyncGenerator[Json, None]:
        request = self._json_format.ParseDict(
            {"message": message_in_version(message, "1.0")},
            self._types.SendMessageRequest(),
            ignore_unknown_fields=True,
        )
        async for update in self._client(streaming).send_message(request):
            yield self._json(update)

    async def task(self, task_id: str) -> Json:
        return self._json(await self._client(streaming=False).get_task(self._types.GetTaskRequest(id=task_id)))

    async def resubscribe(self, task_id: str) -> AsyncGenerator[Json, None]:
        request = self._types.SubscribeToTaskRequest(id=task_id)
        async for update in self._client(streaming=True).subscribe(request):
            yield self._json(update)

    def _client(self, streaming: bool) -> Any:
        module = sdk_module("a2a.client")
        config = module.ClientConfig(
            httpx_client=self._http, streaming=streaming, supported_protocol_bindings=list(_TRANSPORTS)
        )
        try:
            return module.ClientFactory(config).create(self._card)
        except ValueError:
            raise _no_interface(self._card.name) from None

    def _json(self, message: Any) -> Json:
        wire: Json = self._json_format.MessageToDict(message)
        return wire


def _no_interface(name: str | None, details: str = "") -> AgentUnsupported:
    return AgentUnsupported(
        f"the card of {name or 'the agent'} offers no {' or '.join(_TRANSPORTS)} interface{details}"
    )


def sdk_module(name: str) -> ModuleType:
    """Import a module of a2a-sdk or of its dependencies, and note whether the application had imported a2a-sdk."""
    with _import_lock:
        was_imported = TYPES in sys.modules
        module = import_module(name)
        if not was_imported and TYPES in sys.modules:
            _imported_here.add(TYPES)
    return module


def is_imported_by_application() -> bool:
    """Return whether something other than :func:`sdk_module` imported ``a2a.types`` first."""
    return TYPES in sys.modules and TYPES not in _imported_here


@contextmanager
def agent_errors(name: str) -> Iterator[None]:
    """Raise exceptions of httpx and a2a-sdk as an :class:`AgentError` that names the agent."""
    try:
        yield
    except InvalidUpdate as error:
        raise InvalidUpdate(f"{name}: {error}") from error.__cause__
    except EventStoreError:
        raise
    except Exception as error:
        raise agent_error(error, name) from error


def agent_error(error: Exception, name: str) -> AgentError:
    """Return the :class:`AgentError` for an exception of httpx or a2a-sdk."""
    import httpx  # imported when used: it takes about as long as all the rest

    text = printable(f"{type(error).__name__}: {error}")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, httpx.HTTPStatusError):
            code = cause.response.status_code
            return AgentRefused(f"{name}: answered with the HTTP status {code}", code)
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol | httpx.InvalidURL):
            return AgentUnreachable(f"{name}: cannot be reached: {printable(str(cause)) or type(cause).__name__}")
        if isinstance(cause, httpx.TimeoutException):
            return AgentStalled(f"{name}: {text}")
        if isinstance(cause, httpx.TransportError) and type(cause).__name__ != "SSEError":
            return AgentLost(f"{name}: the connection broke while it answered: {printable(str(cause))}")
        cause = cause.__cause__
    return _json_rpc_error(error, name) or InvalidUpdate(f"{name}: what it sent cannot be understood: {text}")


def _json_rpc_error(error: Exception, name: str) -> AgentRefused | None:
    """Return an error of JSON-RPC. In 0.3 the exception holds it; in 1.x most codes have a class, others only text."""
    inner: Any = getattr(error, "error", None)
    if isinstance(code := getattr(inner, "code", None), int):
        return AgentRefused(f"{name}: {printable(str(inner.message))} (error {code})", code)
    classes = [kind.__name__ for kind in type(error).__mro__]
    is_sdk = "A2AError" in classes and error.__cause__ is None and not str(error).startswith("Invalid JSON-RPC")
    code = TASK_NOT_FOUND if "TaskNotFoundError" in classes else None
    return AgentRefused(f"{name}: {printable(str(error))}", code) if is_sdk else None
