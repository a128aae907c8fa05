"""No response reveals anything of another tenant, or of a conversation of another user: not even that it exists."""

from __future__ import annotations

import base64
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.callers import People, Person
from support.endpoints import Endpoint, endpoints
from support.eventsource import EventSource
from support.examples import examples
from support.serving import Served

from agent_manager.auth import TokenScope
from eventstore import conversation_uuid
from eventstore.administration import ADMINISTRATION

pytestmark = pytest.mark.shared_database

SECRET = "xyzzy"
"""Stands in everything that ana has."""
WITHOUT_CONTENT = ("/health", "/ready", "/metrics", "/v1/projections", "/v1/holds", "/v1/retention/rules")
TASK = "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"


@dataclass(frozen=True)
class PrivateConversation:
    """A conversation of ana's, and those who are to see nothing of it.

    Attributes:
        ana: of the tenant acme; its owner.
        bob: of the same tenant.
        eve: of another, in which she may do everything.
        trip: the conversation's id.
        file: the id of a file in it.
    """

    here: Served
    people: People
    ana: Person
    bob: Person
    eve: Person
    trip: str
    file: str

    @property
    def strangers(self) -> tuple[Person, Person]:
        """The callers who see nothing of the conversation."""
        return self.bob, self.eve


@pytest.fixture
async def private(protected: Served, people: People) -> PrivateConversation:
    """A conversation of ana with something of every kind."""
    ana = await people.person("acme", "ana")
    bob = await people.person("acme", "bob")
    eve = await people.person("globex", "eve", *TokenScope)
    made = await ana.post("/v1/conversations", {"id": f"{SECRET}-trip", "name": SECRET, "metadata": {"x": SECRET}})
    assert made.status_code == 201, made.text
    trip = made.json()["id"]
    file = {"kind": "file", "file": {"name": SECRET, "bytes": base64.b64encode(SECRET.encode()).decode()}}
    text = {"kind": "text", "text": f"{SECRET} to Lisbon"}
    message = {"messageId": f"{SECRET}-1", "contextId": f"{SECRET}-trip", "role": "user", "parts": [text, file]}
    sent = await ana.post("/message/send", {"params": message})
    assert sent.status_code == 200, sent.text
    events = [
        {"event_type": "message.added", "content": {
            "role": "user", "content": SECRET, "given_id": f"{SECRET}-2", "awaits_answer": True}},
        {"event_type": "task.created", "content": {"task_id": TASK, "description": SECRET}},
        {"event_type": "task.artifact_added", "content": {"task_id": TASK, "artifact_id": "a", "parts": [text]}},
        {"event_type": "task.status_changed", "content": {"task_id": TASK, "status": "completed"}},
    ]  # fmt: skip
    last = await ana.post(f"/v1/conversations/{trip}/events", {"events": events})
    assert last.status_code == 201, last.text
    listed = (await ana.post("/message/list", {"params": trip})).json()["result"]
    address = listed[0]["parts"][1]["file"]["uri"]
    for path in ("/v1/search?q=x", "/v1/statistics"):
        await ana.get(path, params={"at_least": last.json()["position"]})
    return PrivateConversation(protected, people, ana, bob, eve, trip, address.rpartition("/")[2])


def comparable(answer: httpx.Response, named: str) -> tuple[Any, ...]:
    """All that an answer tells but the time, the id of the request, and what the question named."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    return answer.status_code, headers, answer.text.replace(named, "…").replace(answer.headers["x-request-id"], "…")


def with_conversation() -> list[Endpoint]:
    """Return the endpoints that name a conversation."""
    return [each for each in endpoints() if each.names_conversation]


async def test_an_owner_reads_everything_of_their_conversation(private: PrivateConversation) -> None:
    """Otherwise the rest would prove nothing."""
    for endpoint in endpoints():
        if "{task}" in endpoint.path or "{event}" in endpoint.path:
            continue  # see test_remote_agents.py and test_trail.py
        if endpoint.method == "GET" and not endpoint.is_endless and endpoint.path not in WITHOUT_CONTENT:
            params = {"q": "Lisbon"} if "search" in endpoint.path else {}
            path = endpoint.path.replace("{conversation}", private.trip).replace("{file_id}", private.file)
            answer = await private.ana.get(path, params=params)
            assert answer.status_code == 200, (endpoint, answer.text)
            if endpoint.path == "/v1/audit/trail/export":
                continue  # it is compressed
            of_conversation = ("/v1/conversations/{conversation}/members", "/v1/conversations/{conversation}/ancestry")
            if endpoint.path not in ("/v1/agents", "/v1/statistics", *of_conversation):
                assert SECRET in answer.text, endpoint
    for path in ("/conversation/list", "/task/list", "/events/get", "/message/pending"):
        assert SECRET in (await private.ana.post(path)).text, path


async def test_a_conversation_of_another_user_is_indistinguishable_from_an_unknown_one(
    private: PrivateConversation,
) -> None:
    before = (await private.ana.get("/v1/log", params={"limit": 1000})).json()
    for endpoint in with_conversation():
        if endpoint.path == "/message/send":
            continue  # where there is none it begins one
        if endpoint.needs == TokenScope.ERASE:
            continue  # no stranger here has that scope; see test_erasures.py
        for person in private.strangers:
            nowhere = str(uuid4())
            missing = comparable(await endpoint.request(person.client, nowhere), nowhere)
            hidden = comparable(await endpoint.request(person.client, private.trip), private.trip)
            assert hidden == missing, (endpoint, person.name)
            assert hidden[0] in (404, 200), endpoint  # the demo lists no messages where there is no conversation
            nowhere, text = "abcde-trip", f"{SECRET}-trip"  # as its client named it
            missing = comparable(await endpoint.request(person.client, nowhere), nowhere)
            assert comparable(await endpoint.request(person.client, text), text) == missing, (endpoint, person.name)
    assert (await private.ana.get("/v1/log", params={"limit": 1000})).json() == before, "something was written"


async def test_a_file_of_another_user_is_indistinguishable_from_an_unknown_one(private: PrivateConversation) -> None:
    nowhere = f"{uuid4().hex}{private.file[32:]}"
    for person in private.strangers:
        missing = comparable(await person.get(f"/message/file/{nowhere}"), nowhere)
        assert comparable(await person.get(f"/message/file/{private.file}"), private.file) == missing
        assert missing[0] == 404
    found = await private.ana.get(f"/message/file/{private.file}")
    assert (found.status_code, found.text, found.headers["vary"]) == (200, SECRET, "Authorization")


async def test_no_list_contains_data_of_another_user(private: PrivateConversation) -> None:
    newcomer = await private.people.person("initech", "neo")
    for endpoint in endpoints():
        is_read = endpoint.needs in (TokenScope.READ, TokenScope.AUDIT)
        if not is_read or endpoint.names_conversation or endpoint.is_endless or "{" in endpoint.path:
            continue
        params = {"params": {"q": "Lisbon"}} if "search" in endpoint.path else {}
        answers = []
        for person in (*private.strangers, newcomer):
            more = params if endpoint.method == "GET" else {"json": {}}
            answer = await person.client.request(endpoint.method, endpoint.path, **more)
            assert answer.status_code == 200, (endpoint, answer.text)
            assert SECRET not in answer.text, (endpoint, person.name)
            assert private.trip not in answer.text, (endpoint, person.name)
            answers.append(answer)
        if endpoint.needs is TokenScope.READ:
            assert answers[0].text == answers[1].text == answers[2].text, endpoint
        elif endpoint.path in ("/v1/log", "/v1/audit/trail"):  # administrators see the acts of their own tenant
            seen = {each["conversation_id"] for answer in answers for each in answer.json()["items"]}
            assert seen <= {str(ADMINISTRATION)}, endpoint


async def test_the_demo_endpoints_reject_writes_to_conversations_of_others(private: PrivateConversation) -> None:
    message = {"messageId": "m9", "contextId": private.trip, "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    refused = await private.bob.post("/message/send", {"params": message})
    assert (refused.status_code, refused.json()["error"]["data"]["type"]) == (403, "Forbidden")
    begun = await private.eve.post("/message/send", {"params": message})  # hers, in her tenant
    assert begun.status_code == 200
    assert [each["text"] for each in (await texts(private.eve, private.trip))] == ["hi"]
    assert "hi" not in str(await texts(private.ana, private.trip))


async def texts(person: Person, conversation: str) -> list[Any]:
    """The texts of a conversation, as the demo lists them."""
    listed = (await person.post("/message/list", {"params": conversation})).json()["result"]
    return [message["parts"][0] for message in listed]


async def test_a_conflict_reveals_only_that_the_id_is_taken(private: PrivateConversation) -> None:
    for wanted in (f"{SECRET}-trip", private.trip):
        taken = await private.bob.post("/v1/conversations", {"id": wanted})
        assert taken.status_code == 409
        assert "version" not in taken.text
        hers = await private.eve.post("/v1/conversations", {"id": wanted})
        assert hers.status_code == 201, "another tenant has ids of its own"


async def test_nobody_can_create_the_conversation_of_the_agent_registry(private: PrivateConversation) -> None:
    for wanted in ("eventstore:agents", str(conversation_uuid(private.bob.tenant, "eventstore:agents"))):
        assert (await private.bob.post("/v1/conversations", {"id": wanted})).status_code == 422
        message = {"messageId": "m", "contextId": wanted, "role": "user", "parts": [{"kind": "text", "text": "x"}]}
        assert (await private.bob.post("/message/send", {"params": message})).status_code == 422


async def test_an_etag_of_one_user_does_not_match_for_another(private: PrivateConversation) -> None:
    for path, sends in (
        ("/v1/conversations", None), ("/v1/messages", None), ("/v1/statistics", None), ("/v1/log", None),
        ("/v1/pending", None), ("/v1/agents", None), ("/conversation/list", {}), ("/task/list", {}),
    ):  # fmt: skip

        async def ask(person: Person, tag: str, path: str = path, sends: Any = sends) -> httpx.Response:
            method = "GET" if sends is None else "POST"
            more = {} if sends is None else {"json": sends}
            return await person.client.request(method, path, headers={"If-None-Match": tag} if tag else {}, **more)

        tag = (await ask(private.ana, "")).headers["etag"]
        assert (await ask(private.ana, tag)).status_code == 304, path
        for person in private.strangers:
            assert (await ask(person, tag)).status_code == 200, path


async def test_an_etag_of_a_user_does_not_change_when_others_write(private: PrivateConversation) -> None:
    paths = ("/v1/conversations", "/v1/messages", "/v1/log", "/v1/pending", "/v1/statistics")
    for person in private.strangers:
        tags = {path: (await person.get(path)).headers["etag"] for path in paths}
        appended = await private.ana.post(
            f"/v1/conversations/{private.trip}/messages", {"role": "user", "content": "more"}
        )
        assert appended.status_code == 201
        for path, tag in tags.items():
            again = await person.get(path, headers={"If-None-Match": tag})
            assert again.status_code == 304, (path, person.name, again.text)


async def test_a_stream_sends_only_events_that_its_user_may_see(private: PrivateConversation) -> None:
    async with AsyncExitStack() as stack:
        sources, own = {}, {}
        for person in (private.ana, *private.strangers):
            source = EventSource(private.here.address, "/v1/log/stream?after=0", token=person.token)
            sources[person.name] = await stack.enter_async_context(source)
            own[person.name] = (await person.post("/v1/conversations", {"name": f"of {person.name}"})).json()["id"]
        for person in private.strangers:
            first = await sources[person.name].next()
            while first.data["conversation_id"] == str(ADMINISTRATION):  # the acts of their own tenant
                first = await sources[person.name].next()
            assert (first.name, first.data["conversation_id"]) == ("conversation.created", own[person.name])
        seen = [private.trip]
        while seen[-1] == private.trip:
            seen.append((await sources["ana"].next()).data["conversation_id"])
        assert (seen[-1], len(seen) > 5) == (own["ana"], True)


async def test_the_caller_is_the_actor_and_a_claimed_actor_is_kept_in_the_metadata(
    private: PrivateConversation,
) -> None:
    path = f"/v1/conversations/{private.trip}"
    await private.ana.client.patch(path, json={"name": "x", "actor": "boss"})
    await private.ana.post(f"{path}/messages", {"role": "user", "content": "x"}, params={"actor": "boss"})
    await private.ana.post(f"{path}/events", {"events": [{"event_type": "a", "actor": "boss"}, {"event_type": "b"}]})
    made = (await private.ana.post("/v1/conversations", {"actor": "ana"})).json()["id"]
    key = await private.people.person("acme", None)
    await key.post(f"{path}/messages", {"role": "user", "content": "by a service"})
    await private.ana.client.delete(path, params={"actor": "boss"})

    events = (await private.ana.get(f"{path}/events", params={"limit": 100})).json()["items"]
    actors = [(event["actor"], event["metadata"].get("claimed_actor")) for event in events]
    assert actors[-6:] == [
        ("ana", "boss"), ("ana", "boss"), ("ana", "boss"), ("ana", None), ("key:tests", None), ("ana", "boss"),
    ]  # fmt: skip
    assert {actor for actor, _ in actors} == {"ana", "key:tests", "system"}  # that says that nobody answered
    [begun] = (await private.ana.get(f"/v1/conversations/{made}/events")).json()["items"]
    assert (begun["actor"], begun["metadata"].get("claimed_actor")) == ("ana", None)


async def test_a_cursor_of_one_user_gives_another_no_access(private: PrivateConversation) -> None:
    await private.ana.post("/v1/conversations", {"name": SECRET})
    trip = f"/v1/conversations/{private.trip}"
    cursors = 0
    lists = ("/v1/conversations", "/v1/messages", "/v1/search", "/v1/log", f"{trip}/events", f"{trip}/messages")
    for path in lists:
        params = {"limit": 1} | ({"q": "Lisbon"} if "search" in path else {})
        after = (await private.ana.get(path, params=params)).json()["next"]
        cursors += isinstance(after, str)
        for person in private.strangers:
            answer = await person.get(path, params=params | {"after": after})
            assert answer.status_code in (200, 400, 404, 422), answer.text
            assert SECRET not in answer.text
    assert cursors >= 4


@given(data=st.data())
@examples(40)
async def test_no_parameter_or_header_reveals_data_of_others(private: PrivateConversation, data: st.DataObject) -> None:
    """Filters, orders, positions and headers of every kind, on every read."""
    reads = [each for each in endpoints() if each.method == "GET" and each.needs and not each.is_endless]
    endpoint = data.draw(st.sampled_from(reads))
    wanted = [
        SECRET,
        private.trip,
        f"{SECRET}-trip",
        "ana",
        private.ana.tenant,
        "Lisbon",
        TASK,
        "*",
        "%",
        "' OR 1=1 --",
        "0",
    ]
    texts = st.sampled_from(wanted)
    words = "q actor role type conversation since until after by version position kind deleted tenant user zone limit"
    names = words.split()
    values = texts | st.sampled_from(["1", "1000", "true"])
    params = data.draw(st.dictionaries(st.sampled_from(names), values, max_size=4))
    spoofs = st.sampled_from(["X-Tenant", "X-User", "X-Forwarded-User", "Last-Event-ID", "Cookie", "Forwarded"])
    headers = data.draw(
        st.dictionaries(
            spoofs, st.sampled_from([private.ana.tenant, "ana", f"tenant={private.ana.tenant}"]), max_size=2
        )
    )
    path = endpoint.path.replace("{conversation}", data.draw(texts)).replace("{file_id}", private.file)
    for person in private.strangers:
        answer = await person.get(path, params=params, headers=headers)
        assert answer.status_code < 500, answer.text
        if answer.status_code == 200:
            shown = answer.json() if answer.headers["content-type"] == "application/json" else {}
            shown.pop("searched", None)  # the query, repeated
            assert SECRET not in str(shown or answer.text), (path, params)
