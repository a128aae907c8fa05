"""An id in a path addresses exactly what has that id, whatever characters it has, or is refused."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.callers import People, Person
from support.endpoints import Endpoint, endpoints
from support.examples import examples
from support.serving import Served

from agent_manager.auth import TokenScope
from agent_manager.server.middleware import canonical_path
from agent_manager.server.problems import Rejected

pytestmark = pytest.mark.shared_database

RESERVED = "/%?#[]@!$&'()*+,;=:. \\\"<>^`{|}~"
IDS = st.one_of(
    st.text("ab" + RESERVED, min_size=1, max_size=12),
    st.lists(st.sampled_from(["x", "..", ".", "", "members", "bob", "messages", "%2F", "state", "v1"]), min_size=2).map(
        "/".join
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
).filter(lambda text: not text.startswith("eventstore:"))


def of_conversation() -> list[Endpoint]:
    found = [each for each in endpoints() if "{conversation}" in each.path and not each.is_endless]
    return [each for each in found if "{task}" not in each.path]  # for these see test_remote_agents.py


async def request(here: Served, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Sends a path as it is: clients' libraries put some of them right."""
    reader, writer = await asyncio.open_connection(*here.address)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    whole = await reader.read()
    writer.close()
    return int(whole.split()[1]), whole.partition(b"\r\n\r\n")[2]


def encoded(text: str) -> str:
    return quote(text, safe="")


@pytest.mark.any_server
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_all_encodings_of_an_id_have_one_canonical_path_that_is_its_own(text: str) -> None:
    least = quote(text, safe="!$&'()*+,;=:@-._~")
    most = "".join(f"%{byte:02x}" for byte in text.encode())
    paths = {canonical_path({"raw_path": f"/a/{way}/b".encode()}) for way in (encoded(text), least, most)}
    assert paths == {f"/a/{encoded(text)}/b"}
    with pytest.raises(Rejected, match="UTF-8"):
        canonical_path({"raw_path": b"/a/%ff"})


@given(name=IDS)
@examples(30)
async def test_every_endpoint_finds_a_conversation_by_its_encoded_id(here: Served, name: str) -> None:
    made = await here.client.post("/v1/conversations", json={"id": name})
    assert made.status_code in (201, 409, 422), made.text
    if made.status_code == 422:
        return
    path = f"/v1/conversations/{encoded(name)}"
    status, body = await request(here, "GET", path)
    assert status == 200, body
    assert name in (json.loads(body)["given_id"], json.loads(body)["id"])
    user = encoded(name[::-1])
    status, body = await request(here, "POST", f"{path}/members", json.dumps({"user": name[::-1]}).encode())
    assert status == 201, body
    status, body = await request(here, "DELETE", f"{path}/members/{user}")
    assert status == 204, body
    assert json.loads((await request(here, "GET", f"{path}/members"))[1])["items"] == []


async def test_a_request_for_one_resource_never_reaches_another(here: Served) -> None:
    """Each id is made of the path of something that exists."""
    await here.begin(id="x")
    assert (await here.client.post("/v1/conversations/x/members", json={"user": "bob"})).status_code == 201
    await here.say("x", "secret of x")
    before = (await here.client.get("/v1/log")).json()["items"]
    foreign = ("x/members/bob", "x/messages", "x/state", "x/members", "x?", "x#", "x/", "/x", "x/../x", "x%2Fmessages")
    for endpoint in of_conversation():
        for name in foreign:
            answer = await endpoint.request(here.client, encoded(name))
            assert answer.status_code == 404, (endpoint, name, answer.text)
    assert (await here.client.get("/v1/log")).json()["items"] == before, "something was written"
    for path in ("/v1%2Fconversations%2Fx", "/v1/conversations%2Fx", "/v1/conversations/x%2Fmembers%2Fbob"):
        for method in ("GET", "DELETE"):
            assert (await request(here, method, path))[0] in (404, 405), path
    assert (await request(here, "GET", "/v1/conversations/%ff"))[0] == 400
    assert (await request(here, "GET", "/v1/%63onversations/%78/messages"))[0] == 200, "an equivalent path"


async def test_an_idempotency_key_belongs_to_the_path_as_it_was_sent(protected: Served, people: People) -> None:
    ana: Person = await people.person("acme", "ana", *TokenScope)
    key = {"Idempotency-Key": "1"}
    for name in ("x", "x/members", "x?", "x#"):
        assert (await ana.post("/v1/conversations", {"id": name})).status_code == 201
    message = {"role": "user", "content": "hello"}
    conversation_ids = []
    for name in ("x", "x/members", "x?", "x#", "x"):
        answer = await ana.post(f"/v1/conversations/{encoded(name)}/messages", message, headers=key)
        assert answer.status_code == 201, answer.text
        conversation_ids.append(answer.json()["conversation_id"])
    assert (len(set(conversation_ids)), conversation_ids[0]) == (4, conversation_ids[-1])
