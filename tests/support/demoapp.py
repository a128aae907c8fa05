"""An in-memory application like the A2A demo, for tests of migration and rollback.

``python -m support.demoapp PORT`` serves the demo's endpoints. Like the demo, it stores files separately when messages
are listed. If ``EVENTSTORE_RESTORE`` is set, it restores that file first. ``python -m support.demoapp stop URL`` stops
it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from agent_manager.importers import restore_into

Json = dict[str, Any]


class Wire(BaseModel):
    """Snake case in Python, camel case on the wire, as a2a-sdk 0.3 has it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class Message(Wire):
    """A message."""

    role: str
    parts: list[Json]
    message_id: str = ""
    context_id: str | None = None
    task_id: str | None = None
    metadata: Json | None = None
    kind: str = "message"


class Task(Wire):
    """A task."""

    id: str
    context_id: str
    status: Json
    artifacts: list[Json] | None = None
    history: list[Message] | None = None
    metadata: Json | None = None
    kind: str = "task"


class AgentCard(Wire):
    """The card of an agent."""

    name: str
    url: str


class Conversation(BaseModel):
    """A conversation with the members of the demo's."""

    conversation_id: str
    is_active: bool = True
    name: str = ""
    task_ids: list[str] = Field(default_factory=list)
    messages: list[Message] = Field(default_factory=list)


class Event(BaseModel):
    """A message and the time at which it was sent."""

    id: str
    actor: str = ""
    content: Message
    timestamp: float


class Manager:
    """Keeps everything in lists, and replies to every message with its text."""

    def __init__(self) -> None:
        self._conversations: list[Conversation] = []
        self._messages: list[Message] = []
        self._tasks: list[Task] = []
        self._agents: list[AgentCard] = []
        self._events: list[Event] = []
        self.pending: list[tuple[str, str]] = []

    @property
    def conversations(self) -> list[Conversation]:
        """Return the conversations."""
        return self._conversations

    @property
    def tasks(self) -> list[Task]:
        """Return the tasks."""
        return self._tasks

    @property
    def agents(self) -> list[AgentCard]:
        """Return the agents."""
        return self._agents

    @property
    def events(self) -> list[Event]:
        """Return the events."""
        return self._events

    def get_pending_messages(self) -> list[tuple[str, str]]:
        """Return the messages that await an answer."""
        return self.pending

    def create_conversation(self, conversation_id: str | None = None) -> Conversation:
        """Begin a conversation."""
        self._conversations.append(Conversation(conversation_id=conversation_id or str(uuid4())))
        return self._conversations[-1]

    def remove_messages(self, removed: list[Message]) -> None:
        """Remove messages from memory."""
        for messages in (self._messages, *(conversation.messages for conversation in self._conversations)):
            messages[:] = [each for each in messages if not any(each is other for other in removed)]

    def add_message(self, wire: Json) -> Message:
        """Add a message to its conversation, with an event that holds its time."""
        message = Message.model_validate(wire)
        self._messages.append(message)
        for conversation in self._conversations:
            if conversation.conversation_id == message.context_id:
                conversation.messages.append(message)
        self._events.append(Event(id=str(uuid4()), actor="host", content=message, timestamp=time.time()))
        return message

    def reply_to(self, message: Message) -> None:
        """Send the same message back as the agent, with a completed task; like the demo's tasks, it has no id."""
        reply = message.model_copy(update={"role": "agent", "message_id": str(uuid4())})
        self.add_message(reply.model_dump())
        status = {"state": "completed", "message": message.model_dump(mode="json", by_alias=True)}
        artifact = {"artifactId": str(uuid4()), "name": "response", "parts": list(reply.parts)}
        context_id, history = message.context_id or "", [message, reply]
        self._tasks.append(Task(id="", context_id=context_id, status=status, artifacts=[artifact], history=history))


class Application:
    """The endpoints of a manager."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.files: dict[str, Json] = {}

    def result(self, method: str, params: Any) -> Any:
        """Return the result of an endpoint."""
        manager = self.manager
        if method == "conversation/create":
            return manager.create_conversation()
        if method == "message/send":
            message = manager.add_message(params)
            manager.reply_to(message)
            return {"message_id": message.message_id, "context_id": message.context_id}
        if method == "message/list":
            return [self._store_files(message) for found in manager.conversations if found.conversation_id == params
                    for message in found.messages]  # fmt: skip
        listed = {
            "conversation/list": manager.conversations,
            "task/list": manager.tasks,
            "agent/list": manager.agents,
            "events/get": manager.events,
            "message/pending": manager.pending,
        }
        return listed[method]

    def _store_files(self, message: Message) -> Message:
        for index, part in enumerate(message.parts):
            file = part.get("file")
            if file is not None and not str(file.get("uri", "")).startswith("/message/file/"):
                key = f"{message.message_id}-{index}"
                self.files[key] = file
                message.parts[index] = {"kind": "file", "file": {
                    "mimeType": file.get("mimeType"), "uri": f"/message/file/{key}", "name": None,
                }}  # fmt: skip
        return message


@contextlib.contextmanager
def serving(manager: Manager, kind: type[Application] = Application) -> Iterator[str]:
    """Serve a manager in a thread and yield the URL."""
    with serve(0, manager, kind) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def serve(port: int, manager: Manager, kind: type[Application] = Application) -> ThreadingHTTPServer:
    """Return a server of a manager that is not running yet."""
    application = kind(manager)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are reused

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            params = json.loads(body or b"{}").get("params")
            if self.path == "/stop":
                self._respond(200, b"{}")
                threading.Thread(target=self.server.shutdown).start()
                return
            try:
                result = application.result(self.path.strip("/"), params)
            except Exception:
                self._respond(500, b"Internal Server Error")
                return
            answer = {"jsonrpc": "2.0", "id": "1", "result": result, "error": None}
            self._respond(200, json.dumps(answer, default=_plain).encode())

        def do_GET(self) -> None:
            file = application.files.get(self.path.rpartition("/")[2])
            if file is None or "bytes" not in file:
                self._respond(500, b"Internal Server Error")
            elif "image" in file.get("mimeType", ""):
                self._respond(200, base64.b64decode(file["bytes"]))
            else:
                self._respond(200, file["bytes"].encode())

        def _respond(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _plain(value: Any) -> Any:
    """Return a model as FastAPI writes it: by its aliases, with members that are null."""
    return value.model_dump(mode="json", by_alias=True)


def stop(url: str) -> None:
    """Stop the application at a URL; return once its port is closed."""
    httpx.post(f"{url}/stop", json={}).raise_for_status()
    with contextlib.suppress(httpx.HTTPError):
        while True:
            httpx.post(f"{url}/conversation/list", json={}, timeout=1)


if __name__ == "__main__":
    if sys.argv[1] == "stop":
        stop(sys.argv[2])
    else:
        manager = Manager()
        restore_into(manager, types=sys.modules["__main__"])
        with serve(int(sys.argv[1]), manager) as server:
            server.serve_forever(poll_interval=0.01)
