"""Agents that are made with a2a-sdk's own server, of whichever version is installed.

The text of a message says what such an agent does: ``ask`` begins a task that waits for input, with a status message
that names neither the task nor the context; ``work`` begins a task that goes on until it is cancelled, ``stubborn`` one
that cannot be cancelled; any other text is repeated, or completes the task that it continues.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from support.a2a_server import serving

Json = dict[str, Any]
OLD = metadata.version("a2a-sdk").startswith("0.")


@dataclass
class Recorded:
    """The messages that an agent received.

    Attributes:
        own_contexts: whether it answers in a context of its own when it is sent a context that it does not know.
        streams: whether its card says that it streams.
        requests: the context and the task of each message, and whether it continued a known task.
        messages: the messages, as the JSON of 1.x.
        headers: the headers, or the metadata of gRPC, of each request.
        push: its store of push-notification settings; None if it sends no push notifications.
    """

    own_contexts: bool = False
    streams: bool = True
    requests: list[tuple[str, str, bool]] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    push: Any = None

    @property
    def contexts(self) -> set[str]:
        """The contexts that it was sent."""
        return {context for context, _, _ in self.requests}


@contextmanager
def official_agent(
    *,
    own_contexts: bool = False,
    version: str = "0.3" if OLD else "1.0",
    transport: str = "JSONRPC",
    streams: bool = True,
    pushes: bool = False,
    tls: ssl.SSLContext | None = None,
    grpc_certificate: tuple[Path, Path, Path | None] | None = None,
    grpc_compression: str | None = None,
) -> Iterator[tuple[str, Recorded]]:
    """An agent and what it was sent; gives its URL.

    Args:
        own_contexts: see :class:`Recorded`.
        version: of A2A that it speaks, apart from the SDK's own; and ``transport`` the only interface in its card.
        pushes: whether it takes push-notification settings.
        grpc_certificate: certificate, key, and the CA of the clients' certificates, with which it serves gRPC.
    """
    recorded = Recorded(own_contexts, streams)
    later = _Later(recorded)
    with ExitStack() as stack:
        url = stack.enter_context(serving(later, tls))  # type: ignore[arg-type]
        card = {
            "name": "official", "description": "for tests", "version": "1", "skills": [],
            "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
            "capabilities": {"streaming": streams, "pushNotifications": pushes},
        }  # fmt: skip
        handlers = import_module("a2a.server.request_handlers")
        store = import_module("a2a.server.tasks").InMemoryTaskStore()
        types = import_module("a2a.types")
        if OLD:
            made = types.AgentCard.model_validate(card | {"url": url, "protocolVersion": "0.3.0"})
            handler = handlers.DefaultRequestHandler(_executor(recorded), store)
            later.app = import_module("a2a.server.apps").A2AFastAPIApplication(made, handler).build()
        else:
            made = import_module("google.protobuf.json_format").ParseDict(card, types.AgentCard())
            recorded.push = import_module("a2a.server.tasks").InMemoryPushNotificationConfigStore() if pushes else None
            handler = handlers.DefaultRequestHandler(_executor(recorded), store, made, push_config_store=recorded.push)
            served = url
            if transport == "GRPC":
                served = stack.enter_context(
                    _serving_grpc(handler, version, recorded, grpc_certificate, grpc_compression)
                )
            later.app = _application(handler, card | _interface(served, version, transport))
        yield url, recorded


def _interface(url: str, version: str, transport: str) -> Json:
    if version == "0.3":
        return {"url": url, "preferredTransport": transport, "protocolVersion": "0.3.0"}
    return {"supportedInterfaces": [{"url": url, "protocolBinding": transport, "protocolVersion": version}]}


class _Later:
    """An application that is made once its URL is known, and records the headers of requests."""

    app: ASGIApp

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._recorded.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await self.app(scope, receive, send)


def _application(handler: Any, card: Json) -> ASGIApp:
    routes = import_module("a2a.server.routes")
    app = FastAPI()

    @app.get("/.well-known/agent-card.json")
    async def served_card() -> Json:
        return card

    app.router.routes.extend(routes.create_jsonrpc_routes(handler, "/", enable_v0_3_compat=True))
    app.router.routes.extend(routes.create_rest_routes(handler, enable_v0_3_compat=True))
    return app


@contextmanager
def _serving_grpc(
    handler: Any,
    version: str,
    recorded: Recorded,
    certificate: tuple[Path, Path, Path | None] | None,
    compression: str | None,
) -> Iterator[str]:
    """Serves gRPC from a thread; gives its URL."""
    grpc = import_module("grpc")

    class Recorder(grpc.aio.ServerInterceptor):  # type: ignore[misc, name-defined]
        async def intercept_service(self, continuation: Any, call: Any) -> Any:
            recorded.headers.append(dict(call.invocation_metadata))
            return await continuation(call)

    loop = asyncio.new_event_loop()

    async def start() -> tuple[Any, int]:
        chosen = None if compression is None else grpc.Compression[compression]
        server = grpc.aio.server(interceptors=[Recorder()], compression=chosen)
        if version == "0.3":
            servicer = import_module("a2a.compat.v0_3.grpc_handler").CompatGrpcHandler(handler)
            register = import_module("a2a.compat.v0_3.a2a_v0_3_pb2_grpc")
        else:
            servicer = import_module("a2a.server.request_handlers").GrpcHandler(handler)
            register = import_module("a2a.types.a2a_pb2_grpc")
        register.add_A2AServiceServicer_to_server(servicer, server)
        if certificate is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            chain, key, authority = certificate
            credentials = grpc.ssl_server_credentials(
                [(key.read_bytes(), chain.read_bytes())],
                None if authority is None else authority.read_bytes(),
                authority is not None,
            )
            port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        return server, port

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield f"127.0.0.1:{port}" if certificate is None else f"https://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


async def _stop(server: Any) -> None:
    await server.stop(None)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _executor(recorded: Recorded) -> Any:
    base = import_module("a2a.server.agent_execution").AgentExecutor
    utils = import_module("a2a.utils" if OLD else "a2a.helpers")
    text_message = utils.new_agent_text_message if OLD else utils.new_text_message
    new_task = utils.new_task if OLD else utils.new_task_from_user_message
    updater_of = import_module("a2a.server.tasks").TaskUpdater
    known: set[str] = set()

    class Executor(base):  # type: ignore[misc, valid-type]
        async def execute(self, context: Any, queue: Any) -> None:
            task = context.current_task
            recorded.requests.append((context.context_id, context.task_id, task is not None))
            if not OLD:
                recorded.messages.append(import_module("google.protobuf.json_format").MessageToDict(context.message))
            text = context.get_user_input()
            if task is None and text not in ("ask", "work", "stubborn"):
                named = context.context_id
                if recorded.own_contexts and named not in known:
                    named = f"own-{len(known)}"
                    known.add(named)
                await queue.enqueue_event(text_message(f"heard {text}", context_id=named))
                return
            if task is None:
                task = new_task(context.message)
                await queue.enqueue_event(task)
            updater = updater_of(queue, task.id, task.context_id)
            if text in ("work", "stubborn"):
                await updater.start_work()
                await asyncio.Event().wait()
            elif text == "ask":
                await updater.requires_input(text_message("which?"))
            else:
                await updater.add_artifact(parts=text_message(f"done {text}").parts, name="result")
                await updater.complete(text_message("done"))

        async def cancel(self, context: Any, queue: Any) -> None:
            if "stubborn" in str(context.current_task.history):
                raise import_module("a2a.utils.errors").TaskNotCancelableError
            await updater_of(queue, context.task_id, context.context_id).cancel(text_message("cancelled"))

    return Executor()
