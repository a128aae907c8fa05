"""Every endpoint takes every id, of a conversation, a user or an agent, if it is percent-encoded."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from support.endpoints import BODIES, Endpoint, endpoints
from support.odd_ids import ODD_IDS
from support.serving import Served

pytestmark = [pytest.mark.shared_database, pytest.mark.slow]

OF_CONVERSATION = [
    each
    for each in endpoints()
    if each.names_conversation and set(re.findall(r"{\w+}", each.path)) <= {"{conversation}", "{user}"}
]


def encoded(text: str) -> str:
    """The text as a segment of a path that clients do not normalise."""
    return quote(text, safe="") if text not in (".", "..") else "%2E" * len(text)


async def exchange(here: Served, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """The status and the body of the answer to a request whose path is sent as it is; of a stream, its beginning."""
    reader, writer = await asyncio.open_connection(*here.address)
    sent = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(sent) + sent)
    answer = await reader.readuntil(b"\r\n\r\n")
    rest = b"" if b"text/event-stream" in answer else await reader.read()
    writer.close()
    return int(answer.split()[1]), rest


async def ask(here: Served, endpoint: Endpoint, name: str) -> tuple[int, bytes]:
    user = name[:255]
    path = endpoint.path.replace("{conversation}", encoded(name)).replace("{user}", encoded(user))
    body = json.dumps(BODIES.get((endpoint.method, endpoint.path)))
    body = body.replace('"{conversation}"', json.dumps(name)).replace('"bob"', json.dumps(user))
    return await exchange(here, endpoint.method, path, json.loads(body))


async def test_every_endpoint_takes_every_id(here: Served) -> None:
    for name in ODD_IDS:
        begun = f"/v1/conversations/{encoded(name)}/messages?begin=true"
        assert (await exchange(here, "POST", begun, {"role": "user", "content": name}))[0] == 201, name
    for endpoint in sorted(OF_CONVERSATION, key=lambda each: each.method == "DELETE"):
        for name in ODD_IDS:
            status, answer = await ask(here, endpoint, name)
            assert status in (200, 201, 202, 204), (endpoint, name, answer)
            if endpoint.path.endswith(("{conversation}/messages", "{conversation}/state", "{conversation}/events")):
                quoted = json.dumps(name, ensure_ascii=False)
                assert endpoint.method != "GET" or quoted in answer.decode(), (endpoint, name, answer)
    for name in (".", ".."):  # as a client sends them that leaves paths alone
        answered = await exchange(here, "GET", f"/v1/conversations/{name}/messages")
        assert (answered[0], json.dumps(name) in answered[1].decode()) == (200, True)
    listed = (await here.client.get("/v1/conversations?limit=1000&deleted=true")).json()["items"]
    begun = [each["given_id"] or each["id"] for each in listed if each["forked_from"] is None]
    assert sorted(begun) == sorted(ODD_IDS), "others have begun"


async def test_ids_in_queries_and_bodies_are_taken_as_they_are(here: Served) -> None:
    position = ""
    for name in ODD_IDS:
        assert (
            await here.client.post("/v1/conversations", json={"id": name, "name": name[:255]})
        ).status_code == 201, name
        position = (await here.say(encoded(name), "a train"))["position"]
    for name in ODD_IDS:
        query = {"q": "train", "conversation": name, "at_least": position}
        [hit] = (await here.client.get("/v1/search", params=query)).json()["items"]
        assert hit["conversation_id"] == (await here.client.get(f"/v1/conversations/{encoded(name)}")).json()["id"]
        agent = {"card": {"name": "clerk", "url": name}}
        assert (await here.client.post("/v1/agents", json=agent)).status_code == 201, name
        assert (await here.client.request("DELETE", "/v1/agents", params={"url": name})).status_code == 204, name
        sent = {"messageId": name, "role": "user", "parts": [{"kind": "text", "text": "x"}], "contextId": name}
        body = (await here.client.post("/message/send", json={"params": sent})).json()
        assert body["result"] == {"message_id": name, "context_id": name}
        listed = (await here.client.post("/message/list", json={"params": name})).json()["result"]
        assert listed[-1]["messageId"] == name
