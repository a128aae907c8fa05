"""Agents that are made with a2a-sdk's own server, of whichever version is installed.

The text of a message says what such an agent does: ``ask`` begins a task that waits for input, with a status message
that names neither the task nor the context; any other text is repeated, or completes the task that it continues.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from support.a2a_server import serving

Json = dict[str, Any]
OLD = metadata.version("a2a-sdk").startswith("0.")


class Recorded:
    """What an agent was sent: the context and the task of each message, and whether it continued a known task."""

    def __init__(self, *, own_contexts: bool = False) -> None:
        self.own_contexts = own_contexts
        self.requests: list[tuple[str, str, bool]] = []

    @property
    def contexts(self) -> set[str]:
        """The contexts that it was sent."""
        return {context for context, _, _ in self.requests}


@contextmanager
def official_agent(*, own_contexts: bool = False) -> Iterator[tuple[str, Recorded]]:
    """An agent and what it was sent; gives its URL.

    Args:
        own_contexts: whether it answers in a context of its own when it is sent a context that it does not know.
    """
    recorded = Recorded(own_contexts=own_contexts)
    later = _Later()
    with serving(later) as url:  # type: ignore[arg-type]
        later.app = _application(url, recorded)
        yield url, recorded


class _Later:
    """An application that is made once its URL is known."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def _application(url: str, recorded: Recorded) -> ASGIApp:
    card = {
        "name": "official", "description": "for tests", "version": "1", "skills": [],
        "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"], "capabilities": {"streaming": True},
    }  # fmt: skip
    handlers = import_module("a2a.server.request_handlers")
    store = import_module("a2a.server.tasks").InMemoryTaskStore()
    executor = _executor(recorded)
    types = import_module("a2a.types")
    if OLD:
        made = types.AgentCard.model_validate(card | {"url": url, "protocolVersion": "0.3.0"})
        handler = handlers.DefaultRequestHandler(executor, store)
        app = import_module("a2a.server.apps").A2AFastAPIApplication(made, handler)
        built: ASGIApp = app.build()
        return built
    parse = import_module("google.protobuf.json_format").ParseDict
    interface = {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    made = parse(card | {"supportedInterfaces": [interface]}, types.AgentCard())
    handler = handlers.DefaultRequestHandler(executor, store, made)
    routes = import_module("a2a.server.routes")
    new = FastAPI()
    new.router.routes.extend(routes.create_agent_card_routes(made))
    new.router.routes.extend(routes.create_jsonrpc_routes(handler, "/"))
    return new


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
            text = context.get_user_input()
            if task is None and text != "ask":
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
            if text == "ask":
                await updater.requires_input(text_message("which?"))
            else:
                await updater.add_artifact(parts=text_message(f"done {text}").parts, name="result")
                await updater.complete(text_message("done"))

        async def cancel(self, context: Any, queue: Any) -> None:
            raise NotImplementedError

    return Executor()
