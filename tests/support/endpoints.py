"""Every endpoint of the application, from its own routes, and a request to each that could be answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from agent_manager.auth import TokenScope
from agent_manager.server.app import ROUTERS
from agent_manager.server.authorization import AuthorizedRoute

MESSAGE = {"messageId": "m9", "role": "user", "parts": [{"kind": "text", "text": "let me in"}]}
TASK = "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"
EVENT = {"event_type": "my.own", "content": 1}

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/conversations"): {"id": "another"},
    ("PATCH", "/v1/conversations/{conversation}"): {"name": "mine now"},
    ("POST", "/v1/conversations/{conversation}/messages"): {"role": "user", "content": "let me in"},
    ("POST", "/v1/conversations/{conversation}/send"): MESSAGE,
    ("POST", "/v1/conversations/{conversation}/forks"): {"name": "another way"},
    ("POST", "/v1/conversations/{conversation}/tasks/{task}/cancel"): {},
    ("POST", "/v1/conversations/{conversation}/tasks/{task}/push-notifications"): {"url": "https://client.example"},
    ("POST", "/v1/conversations/{conversation}/events"): {"events": [EVENT]},
    ("POST", "/v1/conversations/{conversation}/members"): {"user": "bob", "access": "write"},
    ("POST", "/v1/erasures"): {"conversation": "{conversation}", "dry_run": True},
    ("POST", "/v1/projections/{projection}/pause"): {},
    ("POST", "/v1/projections/{projection}/resume"): {},
    ("POST", "/v1/agents"): {"card": {"name": "clerk", "url": "https://agents.example/clerk"}},
    ("POST", "/v1/holds"): {"user": "bob", "reason": "case 4711"},
    ("POST", "/v1/retention/rules"): {"age_seconds": 86_400},
    ("POST", "/v1/retention/runs"): {"dry_run": True},
    ("POST", "/conversation/create"): {},
    ("POST", "/conversation/list"): {},
    ("POST", "/message/send"): {"params": MESSAGE | {"contextId": "{conversation}"}},
    ("POST", "/message/list"): {"params": "{conversation}"},
    ("POST", "/message/pending"): {},
    ("POST", "/events/get"): {},
    ("POST", "/task/list"): {},
    ("POST", "/agent/register"): {"params": "http://127.0.0.1:1/"},
    ("POST", "/agent/list"): {},
    ("POST", "/api_key/update"): {"api_key": "k"},
}
"""The body that is sent to each endpoint that takes one; a new endpoint is added here."""
QUERIES: dict[tuple[str, str], Any] = {
    ("GET", "/v1/search"): {"q": "secret"},
    ("GET", "/v1/log/replay"): {"longest_pause": 0},
    ("DELETE", "/v1/agents"): {"url": "https://agents.example/clerk"},
}


@dataclass(frozen=True)
class Endpoint:
    """An endpoint.

    Attributes:
        path: with places for what is named in it.
        needs: None: it is open to all.
    """

    method: str
    path: str
    needs: TokenScope | None

    @property
    def is_endless(self) -> bool:
        """True if its answer does not end."""
        return self.path.endswith("/stream")

    @property
    def names_conversation(self) -> bool:
        """True if a request to it names a conversation, anywhere."""
        return "{conversation}" in self.path + str(BODIES.get((self.method, self.path)))

    def request(self, client: httpx.AsyncClient, conversation: str, file_id: str = "x", **more: Any) -> Any:
        """A request that could be answered, about a conversation."""
        path = self.filled_path(conversation, file_id)
        if self.method in ("POST", "PATCH"):
            more["json"] = _filled(BODIES[self.method, self.path], conversation)
        if self.method in ("GET", "DELETE"):
            more["params"] = QUERIES.get((self.method, self.path), {})
        return client.request(self.method, path, **more)

    def filled_path(self, conversation: str, file_id: str = "x") -> str:
        """The path with something in its places."""
        path = self.path
        places = {
            "conversation": conversation,
            "file_id": file_id,
            "user": "bob",
            "hold": TASK,
            "rule": TASK,
            "task": TASK,
            "event": TASK,
            "config": "p1",
            "projection": "nothing",
        }
        for name, value in places.items():
            path = path.replace(f"{{{name}}}", value)
        return path


def _filled(value: Any, conversation: str) -> Any:
    if isinstance(value, dict):
        return {name: _filled(item, conversation) for name, item in value.items()}
    return conversation if value == "{conversation}" else value


def endpoints() -> list[Endpoint]:
    """All of them.

    Raises:
        AssertionError: an endpoint has a class of routes that does not authenticate.
    """
    found = []
    for prefix, routers in ROUTERS.items():
        for router in routers:
            for route in router.routes:
                assert isinstance(route, AuthorizedRoute), route
                found += [Endpoint(method, prefix + route.path, route.needed) for method in sorted(route.methods or ())]
    return found
