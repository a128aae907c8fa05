"""Clients of remote A2A agents, on a2a-sdk 0.3 or 1.x, whichever is installed.

a2a-sdk is imported nowhere else, and only when a remote agent is used. Its modules are imported by name, so that type
checks do not depend on the installed version.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http import HTTPStatus
from importlib import import_module, metadata
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import uuid4

from agent_manager.a2a import Json, Version, message_to_send
from agent_manager.agents.updates import respelled_message
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

    from agent_manager.agents.access import AgentAccess, GrpcChannel

TYPES = "a2a.types"
TASK_NOT_FOUND, TASK_NOT_CANCELABLE = -32001, -32002
"""A2A's JSON-RPC codes for a task that the agent does not know, and for one that it cannot cancel."""

_CODES = {
    "TaskNotFoundError": TASK_NOT_FOUND, "TASK_NOT_FOUND": TASK_NOT_FOUND,
    "TaskNotCancelableError": TASK_NOT_CANCELABLE, "TASK_NOT_CANCELABLE": TASK_NOT_CANCELABLE,
    "PushNotificationNotSupportedError": -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED": -32003,
    "UnsupportedOperationError": -32004, "UNSUPPORTED_OPERATION": -32004,
    "MethodNotFoundError": -32601,
}  # fmt: skip
"""Errors by the names that a2a-sdk 1.x gives their classes, and 1.x their reasons over HTTP+JSON."""
_ERROR_BYTES = 10_000
"""Beginning of an error's body in which its name is sought."""

UNSUPPORTED = frozenset((-32003, -32004, -32601, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED))
"""Codes of agents that do not support a request."""

_TRANSPORTS = {
    "JSONRPC": ("jsonrpc", "JsonRpcTransport"),
    "HTTP+JSON": ("rest", "RestTransport"),
    "GRPC": ("grpc", "GrpcTransport"),
}
"""Transports by their names in agent cards: module and class in a2a-sdk 0.3."""

_import_lock = Lock()
_imported_here: set[str] = set()


@asynccontextmanager
async def a2a_client(card: Json, http: httpx.AsyncClient, access: AgentAccess) -> AsyncIterator[Client]:
    """Open a client of the agent that a card describes, on the first of its interfaces that can be used.

    Args:
        access: the rules for gRPC; the credentials for the interface are added to it.

    Raises:
        AgentUnsupported: a2a-sdk is not installed, or cannot talk to the agent.
        httpx.ConnectError: the host of an interface for gRPC cannot be resolved, or has an address that is not allowed.
    """
    from agent_manager.agents.access import grpc_url, open_channel

    try:
        is_old = metadata.version("a2a-sdk").startswith("0.")
    except metadata.PackageNotFoundError:
        raise AgentUnsupported(
            "talking to a remote agent takes a2a-sdk: pip install 'flowagents-eventstore[a2a]'"
        ) from None
    interface = _interface(card, newest="0.3" if is_old else "1")
    access.add(grpc_url(interface.url) if interface.transport == "GRPC" else interface.url)
    async with AsyncExitStack() as stack:
        channel = None
        if interface.transport == "GRPC":
            channel = await open_channel(grpc_url(interface.url), access)
            stack.push_async_callback(channel.close)
        yield (ClientV03 if is_old else ClientV1)(interface, http, channel)


class Interface(NamedTuple):
    """An interface in an agent's card."""

    transport: str
    url: str
    version: str
    tenant: str = ""


def _interface(card: Json, newest: str) -> Interface:
    """Return the first interface of a card that can be used; of several with its transport, one of version 1.

    Args:
        newest: the beginning of the newest version that can be used.
    """
    additional, supported = card.get("additionalInterfaces"), card.get("supportedInterfaces")
    version = card.get("protocolVersion") or "0.3.0"
    listed: list[tuple[Any, ...]] = []
    if isinstance(supported, list):
        names = ("protocolBinding", "url", "protocolVersion", "tenant")
        listed = [tuple(each.get(name) or "" for name in names) for each in supported if isinstance(each, dict)]
    listed.append((card.get("preferredTransport") or "JSONRPC", card.get("url"), version))
    if isinstance(additional, list):
        listed += [(each.get("transport"), each.get("url"), version) for each in additional if isinstance(each, dict)]
    known = [Interface(*map(str, each)) for each in listed if each[0] in list(_TRANSPORTS) and each[1]]
    usable = [each for each in known if each.version.startswith(("0.", newest))]
    has_grpc = find_spec("grpc") is not None
    offers = f"the card of {card.get('name') or 'the agent'} offers"
    if not usable:
        newer = f" of version {newest}; newer ones take a2a-sdk 1.0 or later" if known else ""
        raise AgentUnsupported(f"{offers} no interface of {', '.join(_TRANSPORTS)}{newer}")
    usable = [each for each in usable if has_grpc or each.transport != "GRPC"]
    if not usable:
        raise AgentUnsupported(f"{offers} only gRPC, which takes pip install 'flowagents-eventstore[grpc]'")
    same = [each for each in usable if each.transport == usable[0].transport]
    return next((each for each in same if each.version.startswith("1.")), same[0])


class ClientV03:
    """A client of one agent, on the transports of a2a-sdk 0.3, which yield each update as it came.

    The SDK's own client merges updates into one task and fails on an agent that sends two.
    """

    def __init__(self, interface: Interface, http: httpx.AsyncClient, channel: GrpcChannel | None) -> None:
        module, transport = _TRANSPORTS[interface.transport]
        make = getattr(sdk_module(f"a2a.client.transports.{module}"), transport)
        self._types = sdk_module(TYPES)
        self._transport = make(http, url=interface.url) if channel is None else make(channel, None)

    async def send(self, message: Json, push: Json | None, *, streaming: bool) -> AsyncGenerator[Json, None]:
        """Send a message of any format that the store accepts, and yield the updates, as wire JSON, as they arrive.

        Args:
            push: a setting of push notifications, see :meth:`set_push_notification`.
        """
        configuration = {"blocking": True, "pushNotificationConfig": None if push is None else _push_notification(push)}
        params = self._types.MessageSendParams.model_validate(
            {"message": _outgoing(message, "0.3"), "configuration": configuration}
        )
        if not streaming:
            yield self._json(await self._transport.send_message(params))
            return
        async for update in self._transport.send_message_streaming(params):
            yield self._json(update)

    async def task(self, task_id: str) -> Json:
        """Return the current state of a task."""
        return self._json(await self._transport.get_task(self._types.TaskQueryParams(id=task_id)))

    async def cancel(self, task_id: str) -> Json:
        """Cancel a task; return its state afterwards."""
        return self._json(await self._transport.cancel_task(self._types.TaskIdParams(id=task_id)))

    async def set_push_notification(self, task_id: str, config: Json) -> None:
        """Let the agent notify a URL of changes of a task; the setting is in 1.x's format and has an id."""
        setting = {"taskId": task_id, "pushNotificationConfig": _push_notification(config)}
        await self._transport.set_task_callback(self._types.TaskPushNotificationConfig.model_validate(setting))

    async def push_notification(self, task_id: str, config_id: str) -> Json:
        """Return a setting of push notifications."""
        params = self._types.GetTaskPushNotificationConfigParams(id=task_id, push_notification_config_id=config_id)
        return self._json(await self._transport.get_task_callback(params))

    async def delete_push_notification(self, task_id: str, config_id: str) -> None:
        """Raise AgentUnsupported: no transport of a2a-sdk 0.3 can delete a setting of push notifications."""
        raise AgentUnsupported("a2a-sdk 0.3 has no request that deletes a setting: use a2a-sdk 1.0 or later")

    async def resubscribe(self, task_id: str) -> AsyncGenerator[Json, None]:
        """Yield further updates of a task that the agent is working on."""
        async for update in self._transport.resubscribe(self._types.TaskIdParams(id=task_id)):
            yield self._json(update)

    @staticmethod
    def _json(update: Any) -> Json:
        wire: Json = update.model_dump(mode="json", by_alias=True, exclude_none=True)
        return wire


class ClientV1:
    """A client of one agent, on the transports of a2a-sdk 1.x, which talk to agents of 0.3 too: see :class:`ClientV03`.

    The SDK's factory of clients finds no gRPC for agents of 0.3 if the application imported the SDK's server for these.
    """

    def __init__(self, interface: Interface, http: httpx.AsyncClient, channel: GrpcChannel | None) -> None:
        module, transport = _TRANSPORTS[interface.transport]
        sdk_module("a2a.client")  # first, because the SDK's modules import each other
        if interface.version.startswith("0."):
            make = getattr(sdk_module(f"a2a.compat.v0_3.{module}_transport"), f"Compat{transport}")
        else:
            make = getattr(sdk_module(f"a2a.client.transports.{module}"), transport)
        self._types = sdk_module(TYPES)
        self._json_format = sdk_module("google.protobuf.json_format")
        http.headers.setdefault("A2A-Version", "1.0")
        self._transport = make(http, None, interface.url) if channel is None else make(channel, None)
        self._tenant = interface.tenant

    async def send(self, message: Json, push: Json | None, *, streaming: bool) -> AsyncGenerator[Json, None]:
        configuration = {} if push is None else {"configuration": {"taskPushNotificationConfig": push}}
        request = self._request("SendMessageRequest", message=_outgoing(message, "1.0"), **configuration)
        if not streaming:
            yield self._json(await self._transport.send_message(request))
            return
        async for update in self._transport.send_message_streaming(request):
            yield self._json(update)
            if update.HasField("message"):  # it is the only one
                return

    async def task(self, task_id: str) -> Json:
        return self._json(await self._transport.get_task(self._request("GetTaskRequest", id=task_id)))

    async def cancel(self, task_id: str) -> Json:
        return self._json(await self._transport.cancel_task(self._request("CancelTaskRequest", id=task_id)))

    async def set_push_notification(self, task_id: str, config: Json) -> None:
        request = self._request("TaskPushNotificationConfig", taskId=task_id, **config)
        await self._transport.create_task_push_notification_config(request)

    async def push_notification(self, task_id: str, config_id: str) -> Json:
        request = self._request("GetTaskPushNotificationConfigRequest", taskId=task_id, id=config_id)
        return self._json(await self._transport.get_task_push_notification_config(request))

    async def delete_push_notification(self, task_id: str, config_id: str) -> None:
        request = self._request("DeleteTaskPushNotificationConfigRequest", taskId=task_id, id=config_id)
        await self._transport.delete_task_push_notification_config(request)

    async def resubscribe(self, task_id: str) -> AsyncGenerator[Json, None]:
        async for update in self._transport.subscribe(self._request("SubscribeToTaskRequest", id=task_id)):
            yield self._json(update)

    def _request(self, name: str, **members: Any) -> Any:
        if self._tenant:
            members["tenant"] = self._tenant
        return self._json_format.ParseDict(members, getattr(self._types, name)(), ignore_unknown_fields=True)

    def _json(self, message: Any) -> Json:
        wire: Json = self._json_format.MessageToDict(message)
        return wire


Client: TypeAlias = ClientV03 | ClientV1


def _push_notification(config: Json) -> Json:
    """Return a setting of push notifications in 0.3's format."""
    if (authentication := config.get("authentication")) is None:
        return config
    return config | {"authentication": authentication | {"schemes": [authentication["scheme"]]}}


def _outgoing(message: Json, version: Version) -> Json:
    return message_to_send(respelled_message(message), version, str(uuid4()))


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
    """Return the :class:`AgentError` for an exception of httpx, grpc or a2a-sdk."""
    import httpx  # imported when used: it takes about as long as all the rest

    if isinstance(error, NotImplementedError):  # from the SDK's own transports
        return AgentUnsupported(f"{name}: a2a-sdk cannot request this from an agent of its version and transport")
    code = next((_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _CODES), None)
    if code is not None and not isinstance(error.__cause__, httpx.HTTPStatusError):
        return AgentRefused(f"{name}: {printable(str(error))}", code)
    text = printable(f"{type(error).__name__}: {error}")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, httpx.HTTPStatusError):
            status, body = cause.response.status_code, cause.response.text[:_ERROR_BYTES]
            word = next((word for word in _CODES if f'"{word}"' in body), None)
            text = f"{name}: answered with the HTTP status {status}{f': {word}' if word else ''}"
            return AgentRefused(text, _CODES[word] if word else status)
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol | httpx.InvalidURL):
            return AgentUnreachable(f"{name}: cannot be reached: {printable(str(cause)) or type(cause).__name__}")
        if isinstance(cause, httpx.TimeoutException):
            return AgentStalled(f"{name}: {text}")
        if isinstance(cause, httpx.TransportError) and type(cause).__name__ != "SSEError":
            return AgentLost(f"{name}: the connection broke while it answered: {printable(str(cause))}")
        if type(cause).__name__ == "AioRpcError":
            return _grpc_error(cause, name)
        cause = cause.__cause__
    return _json_rpc_error(error, name) or InvalidUpdate(f"{name}: what it sent cannot be understood: {text}")


def _grpc_error(error: Any, name: str) -> AgentError:
    status, text = error.code().name, printable(str(error.details()))
    if status == "UNAVAILABLE":
        if "failed to connect" in text:
            return AgentUnreachable(f"{name}: cannot be reached: {text}")
        return AgentLost(f"{name}: the connection broke while it answered: {text}")
    if status == "DEADLINE_EXCEEDED":
        return AgentStalled(f"{name}: {text}")
    if "larger than max" in text:
        return InvalidUpdate(f"{name}: {text}")
    statuses = {"NOT_FOUND": TASK_NOT_FOUND, "UNIMPLEMENTED": _CODES["MethodNotFoundError"]}
    code = next((code for word, code in _CODES.items() if text.startswith(word)), statuses.get(status))
    return AgentRefused(f"{name}: answered with the status {status} of gRPC: {text}", code)


def _json_rpc_error(error: Exception, name: str) -> AgentRefused | None:
    """Return an error of JSON-RPC. In 0.3 the exception holds it; in 1.x codes without a class leave only text."""
    inner: Any = getattr(error, "error", None)
    if isinstance(code := getattr(inner, "code", None), int):
        return AgentRefused(f"{name}: {printable(str(inner.message))} (error {code})", code)
    classes = [kind.__name__ for kind in type(error).__mro__]
    is_sdk = "A2AError" in classes and error.__cause__ is None and not str(error).startswith("Invalid JSON-RPC")
    return AgentRefused(f"{name}: {printable(str(error))}") if is_sdk else None
