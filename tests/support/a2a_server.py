"""Small A2A agents over HTTP, in plain JSON-RPC and server-sent events: in a thread or in a process that can die.

The text of a message selects what the agent does: one of the names in :data:`PLAYS`.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from support.environment import child_environment
from support.waiting import until

Json = dict[str, Any]

_STATES = {
    "submitted": "TASK_STATE_SUBMITTED",
    "working": "TASK_STATE_WORKING",
    "completed": "TASK_STATE_COMPLETED",
    "failed": "TASK_STATE_FAILED",
    "input-required": "TASK_STATE_INPUT_REQUIRED",
}


@dataclass
class Agent:
    """An agent.

    Attributes:
        shape: of A2A that it speaks, 0.3 or 1.0.
        streams: whether its card says that it streams.
        transport: that its card names.
        card_path: where its card is.
        asked: the messages that it received.
        looks: the number of requests for a task.
        listens: the number of requests to resubscribe to a task.
        knows: whether it finds its tasks when they are requested.
    """

    shape: str
    streams: bool
    transport: str = "JSONRPC"
    card_path: str = "/.well-known/agent-card.json"
    url: str = ""
    asked: list[Json] = field(default_factory=list)
    looks: int = 0
    listens: int = 0
    knows: bool = True

    @property
    def card(self) -> Json:
        """The card of the agent."""
        base = {
            "name": f"little {self.shape}", "description": "for tests", "version": "1", "skills": [],
            "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
            "capabilities": {"streaming": self.streams},
        }  # fmt: skip
        if self.shape == "0.3":
            return base | {"url": self.url, "protocolVersion": "0.3.0", "preferredTransport": self.transport}
        interface = {"url": self.url, "protocolBinding": self.transport, "protocolVersion": "1.0"}
        return base | {"supportedInterfaces": [interface]}

    def message(self, text: str, **more: Any) -> Json:
        """A message of the agent's."""
        if self.shape == "0.3":
            part, head = {"kind": "text", "text": text}, {"kind": "message", "role": "agent"}
        else:
            part, head = {"text": text}, {"role": "ROLE_AGENT"}
        return {**head, "messageId": f"of {text}", "parts": [part], **more}

    def status(self, state: str, text: str | None = None) -> Json:
        """A status."""
        message_member = {} if text is None else {"message": self.message(text)}
        word = state if self.shape == "0.3" else _STATES[state]
        return {"state": word, "timestamp": "2025-01-02T03:04:05Z", **message_member}

    def a_message(self, text: str, **more: Any) -> Json:
        """A message as an update."""
        return self._update("message", "message", self.message(text, **more))

    def a_task(self, state: str, text: str | None = None, **more: Any) -> Json:
        """A task as an update."""
        return self._update("task", "task", {"id": "t", "contextId": "c", "status": self.status(state, text), **more})

    def a_status(self, state: str, text: str | None = None, *, final: bool = False, **more: Any) -> Json:
        """A status update."""
        ends = {"final": final} if self.shape == "0.3" else {}
        update = {"taskId": "t", "contextId": "c", "status": self.status(state, text), **ends, **more}
        return self._update("status-update", "statusUpdate", update)

    def a_chunk(self, text: str, *, append: bool, last: bool, **more: Any) -> Json:
        """An artifact update."""
        part = {"kind": "text", "text": text} if self.shape == "0.3" else {"text": text}
        artifact = {"artifactId": "a", "parts": [part]} | ({} if append else {"name": "out"})
        update = {"taskId": "t", "contextId": "c", "artifact": artifact, "append": append, "lastChunk": last, **more}
        return self._update("artifact-update", "artifactUpdate", update)

    def _update(self, kind: str, member: str, inner: Json) -> Json:
        return {"kind": kind, **inner} if self.shape == "0.3" else {member: inner}


Play = Callable[[Agent], AsyncIterator[Any]]


async def _hello(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_message("hello", contextId="c", metadata={"mood": "good"})


async def _work(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("submitted", metadata={"cost": "low"})
    yield agent.a_status("working", "thinking", metadata={"step": "one"})
    yield agent.a_chunk("one ", append=False, last=False)
    yield agent.a_chunk("two ", append=True, last=False)
    yield agent.a_chunk("three", append=True, last=True)
    yield agent.a_status("completed", final=True)


async def _tokens(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("working")
    for number in range(1000):
        yield agent.a_chunk(f"{number} ", append=number > 0, last=number == 999)
    yield agent.a_status("completed", final=True)


async def _separators(agent: Agent) -> AsyncIterator[Any]:
    yield json.dumps(_envelope({"id": 1}, agent.a_message("a\u2028b\u2029c\x85d\ve\x1ef")), ensure_ascii=False)


async def _whole(agent: Agent) -> AsyncIterator[Any]:
    part = {"kind": "text", "text": "all"} if agent.shape == "0.3" else {"text": "all"}
    yield agent.a_task("completed", history=[agent.message("before")], artifacts=[{"artifactId": "a", "parts": [part]}])


async def _ask(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("input-required", "which?")


async def _stall(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("working")
    await asyncio.Event().wait()


async def _chatter(agent: Agent) -> AsyncIterator[Any]:
    for number in range(10_000):
        yield agent.a_status("working", f"still {number}")
        await asyncio.sleep(0.02)


async def _die(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("working")
    yield agent.a_chunk("half", append=False, last=False)
    os._exit(1)  # the next update is requested only once the last was sent


async def _lie(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("working", id="other", contextId="foreign")
    yield agent.a_status("working", taskId="another", contextId="elsewhere")
    yield agent.a_status("completed", taskId="other", contextId="foreign", final=True)


async def _no_first_chunk(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_chunk("the end", append=True, last=True)
    yield agent.a_status("completed", final=True)


async def _nonsense(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("working")
    yield {"weather": "fine"}


async def _no_json(agent: Agent) -> AsyncIterator[Any]:
    yield "{this is no json"


async def _number(agent: Agent) -> AsyncIterator[Any]:
    yield 5


async def _nothing(agent: Agent) -> AsyncIterator[Any]:
    return
    yield


async def _refuse(agent: Agent) -> AsyncIterator[Any]:
    yield ConnectionRefusedError


async def _spelled(agent: Agent) -> AsyncIterator[Any]:
    parts = {"content": agent.message("thinking")["parts"]}
    message = {name: value for name, value in agent.message("thinking").items() if name != "parts"} | parts
    yield agent.a_task("working")
    yield agent.a_status("working", status={"state": 2, "message": message})
    yield agent.a_status("working", status={"state": "CANCELLED"}, final=True)


async def _invented(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("working")
    yield agent.a_status("working", status={"state": "thinking"})
    yield agent.a_chunk("all", append=False, last=True)
    yield agent.a_status("completed", final=True)


async def _leave(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_task("working")


async def _leave_once(agent: Agent) -> AsyncIterator[Any]:
    first = len(agent.asked) == 1
    yield agent.a_task("working") if first else agent.a_task("completed", "done after all", id="t2")


PLAYS: dict[str, Play] = {
    "hello": _hello, "work": _work, "whole": _whole, "ask": _ask, "stall": _stall, "chatter": _chatter, "die": _die,
    "lie": _lie, "no first chunk": _no_first_chunk, "nonsense": _nonsense, "no json": _no_json, "number": _number,
    "nothing": _nothing, "refuse": _refuse, "leave": _leave, "leave once": _leave_once,
    "separators": _separators, "tokens": _tokens, "spelled": _spelled, "invented": _invented,
}  # fmt: skip
"""The abilities of an agent."""


def application(agent: Agent) -> FastAPI:
    """The agent as a web application."""
    app = FastAPI()

    @app.get(agent.card_path)
    async def card() -> Json:
        return agent.card

    @app.post("/")
    async def call(request: Request) -> Response:
        body = await request.json()
        if body["method"] in ("tasks/get", "GetTask"):
            agent.looks += 1
            if not agent.knows:
                return JSONResponse(_envelope(body, LookupError))
            task = agent.a_task("working" if agent.looks < 3 else "completed", f"look {agent.looks}")
            return JSONResponse(_envelope(body, task if agent.shape == "0.3" else task["task"]))
        if body["method"] in ("tasks/resubscribe", "SubscribeToTask"):
            agent.listens += 1
            return StreamingResponse(_events(body, _continued(agent)), media_type="text/event-stream")
        message = body["params"]["message"]
        agent.asked.append(message)
        text = message["parts"][0]["text"]
        if text == "http 503":
            return Response("busy", 503)
        updates = PLAYS[text](agent)
        if body["method"] in ("message/stream", "SendStreamingMessage"):
            return StreamingResponse(_events(body, updates), media_type="text/event-stream")
        async for update in updates:
            envelope = _envelope(body, update)
            return (
                Response(envelope, media_type="application/json")
                if isinstance(envelope, str)
                else JSONResponse(envelope)
            )
        return JSONResponse({"jsonrpc": "2.0", "id": body["id"]})

    @app.post("/message:{how}")
    async def rest(how: str, request: Request) -> Response:
        message = (await request.json())["message"]
        agent.asked.append(message)
        updates = PLAYS[message["parts"][0]["text"]](agent)
        if how == "stream":
            lines = (f"data: {json.dumps(update)}\n\n" async for update in updates)
            return StreamingResponse(lines, media_type="text/event-stream")
        return JSONResponse(await anext(updates))

    return app


def _envelope(body: Json, update: Any) -> Any:
    if isinstance(update, str):
        return update
    if update is ConnectionRefusedError:
        return {"jsonrpc": "2.0", "id": body["id"], "error": {"code": -32603, "message": "not today"}}
    if update is LookupError:
        return {"jsonrpc": "2.0", "id": body["id"], "error": {"code": -32001, "message": "no such task"}}
    return {"jsonrpc": "2.0", "id": body["id"], "result": update}


async def _continued(agent: Agent) -> AsyncIterator[Any]:
    yield agent.a_chunk("the rest", append=False, last=True)
    yield agent.a_status("working", "nearly there")


async def _events(body: Json, updates: AsyncIterator[Any]) -> AsyncIterator[str]:
    async for update in updates:
        envelope = _envelope(body, update)
        yield f"data: {envelope if isinstance(envelope, str) else json.dumps(envelope)}\n\n"


@contextmanager
def serving(app: FastAPI, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serves an application from a thread; gives its URL."""
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the agent serves")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http{'s' * (tls is not None)}://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


@contextmanager
def agent_in_thread(shape: str, *, streams: bool, **more: Any) -> Iterator[Agent]:
    """An agent."""
    agent = Agent(shape, streams, **more)
    with serving(application(agent)) as url:
        agent.url = url
        yield agent


@contextmanager
def agent_in_process(shape: str, *, streams: bool) -> Iterator[str]:
    """An agent that can die; gives its URL."""
    command = [sys.executable, "-m", "support.a2a_server", shape, "streams" if streams else "answers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


if __name__ == "__main__":
    with agent_in_thread(sys.argv[1], streams=sys.argv[2] == "streams") as little:
        print(little.url, flush=True)
        threading.Event().wait()
