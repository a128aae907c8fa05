"""The OpenAPI says what the server does: for whatever it is asked, it answers as described, and never fails."""

from __future__ import annotations

import json
import string
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st
from support.endpoints import TASK
from support.examples import examples
from support.serving import Served

from agent_manager.auth import Authenticator
from agent_manager.factory import AsyncManager
from agent_manager.server.app import create_app
from agent_manager.server.context import ServerContext
from agent_manager.server.sealed_tokens import TokenSealer
from eventstore import EventStore

Json = dict[str, Any]
STREAMS = ("/v1/log/stream", "/v1/conversations/{conversation}/stream")


def described(store: EventStore) -> Json:
    """The description, without a server."""
    manager, authenticator = AsyncManager(store, runs_worker=False), Authenticator(store, store.settings)
    return create_app(
        ServerContext(store, manager, authenticator, TokenSealer(bytes(64)), requires_tokens=False)
    ).openapi()


def resolve(schema: Json, whole: Json) -> Json:
    """A schema, where it refers to another that one."""
    while "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = whole["components"]["schemas"][name]
    return schema


def fits(value: Any, schema: Json, whole: Json, path: str = "") -> None:
    """Fails where a value is not of a schema, as far as these schemas go."""
    schema = resolve(schema, whole)
    if "anyOf" in schema:
        problems = []
        for one in schema["anyOf"]:
            try:
                return fits(value, one, whole, path)
            except AssertionError as error:
                problems.append(str(error))
        raise AssertionError(f"{path}: {value!r} fits none: {problems}")
    if "const" in schema:
        assert value == schema["const"], path
    if "enum" in schema:
        assert value in schema["enum"], path
    kinds = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
        "null": type(None),
    }  # fmt: skip
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(isinstance(value, kinds[name]) for name in names), f"{path}: {value!r} is no {names}"
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= value.keys(), f"{path}: {value.keys()}"
        known = schema.get("properties", {})
        if known and not schema.get("additionalProperties"):
            assert value.keys() <= known.keys(), f"{path}: {value.keys() - known.keys()} are not described"
        for name, item in value.items():
            fits(item, known.get(name, {}), whole, f"{path}.{name}")
    if isinstance(value, list):
        for item in value:
            fits(item, schema.get("items", {}), whole, f"{path}[]")
    return None


def check(answer: httpx.Response, operation: Json, whole: Json) -> None:
    """Fails unless an answer is as described."""
    status = str(answer.status_code)
    assert answer.status_code < 500, answer.text
    assert status in operation["responses"], f"{answer.request.method} {answer.request.url}: {status} {answer.text}"
    content = operation["responses"][status].get("content", {})
    if not content:
        assert answer.content == b""
        return
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in content or "*/*" in content, kind
    if kind.endswith("json"):
        fits(answer.json(), content.get(kind, {}).get("schema", {}), whole)


async def test_the_openapi_document_has_every_endpoint(here: Served) -> None:
    document = (await here.client.get("/openapi.json")).json()
    assert document == described(here.store)
    assert {"/v1/conversations", "/v1/log/stream", "/message/send", "/health"} <= document["paths"].keys()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), (method, path)
            for parameter in operation.get("parameters", []):
                assert resolve(parameter["schema"], document)
    text = json.dumps(document)
    for name in (part.split('"')[0] for part in text.split("#/components/schemas/")[1:]):
        assert name in document["components"]["schemas"]


async def test_every_read_responds_as_the_openapi_document_says(here: Served) -> None:
    await here.begin(id="trip", metadata={"x": 1})
    await here.say("trip", "hello", parts=[{"text": "more"}])
    events = [
        {"event_type": "task.created", "content": {"task_id": TASK}},
        {"event_type": "task.artifact_added", "content": {
            "task_id": TASK, "artifact_id": "a", "parts": [1]}},
        {"event_type": "my.own", "content": [None]},
    ]  # fmt: skip
    whole = described(here.store)
    made = await here.client.post("/v1/conversations/trip/events", json={"events": events})
    check(made, whole["paths"]["/v1/conversations/{conversation}/events"]["post"], whole)
    for path, methods in whole["paths"].items():
        others = ("/metrics", "/v1/audit/trail/export")
        if "get" in methods and path not in (*STREAMS, *others) and not path.endswith(("{file_id}", "{config}")):
            params = {"q": "hello", "at_least": made.json()["position"]} if path == "/v1/search" else {}
            event = made.json()["events"][0]["event_id"]
            filled = path.replace("{conversation}", "trip").replace("{task}", TASK).replace("{event}", event)
            answer = await here.client.get(filled, params=params)
            assert answer.status_code == 200, answer.text
            check(answer, methods["get"], whole)


TEXTS = st.one_of(
    st.sampled_from(["trip", "0", "-1", "9" * 30, "true", "user", "2025-01-01T00:00:00Z", "", "\0", "..", "%", "é"]),
    st.text(max_size=20),
    st.text(string.printable, max_size=40),
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), TEXTS,
        st.sampled_from(["message.added", "conversation.created", "user", "ROLE_AGENT", [], {}]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip
MEMBERS = (
    "name", "id", "metadata", "actor", "is_active", "expected_version", "events", "event_type", "content", "role",
    "parts", "messageId", "contextId", "params", "method", "jsonrpc", "url", "card", "api_key", "text", "kind",
)  # fmt: skip
BODIES = st.one_of(VALUES, st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=6))


@st.composite
def requests(draw: st.DrawFn, operations: list[tuple[str, str, Json]]) -> tuple[str, str, Json, bytes | None, Json]:
    """A request to one of the endpoints: method, path, query, body, and what is described of it."""
    method, path, operation = draw(st.sampled_from(operations))
    for name in ("{conversation}", "{file_id}", "{task}", "{config}"):
        path = path.replace(name, quote(draw(TEXTS), safe="") or "x")
    names = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
    query = draw(st.dictionaries(st.sampled_from([*names, "x"]), TEXTS, max_size=4))
    body = None
    if method != "get":
        body = draw(st.one_of(BODIES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=9)))
    return method, path, query, body, operation


async def test_random_requests_get_documented_responses(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests made of anything at all. What they store stays: so later ones meet what earlier ones left."""
    monkeypatch.setenv("GOOGLE_API_KEY", "")
    whole = described(here.store)
    operations = [
        (method, path, operation)
        for path, methods in whole["paths"].items()
        for method, operation in methods.items()
        if path not in STREAMS
    ]
    await here.begin(id="trip")
    asked: list[tuple[str, str, Json, bytes | None, Json]] = []

    @given(st.lists(requests(operations), min_size=20, max_size=20))
    @examples(15, phases=[Phase.generate])
    def draw(some: list[tuple[str, str, Json, bytes | None, Json]]) -> None:
        asked.extend(some)

    draw()
    here.server_context.reader.timeout = 0.05
    for method, path, query, body, operation in asked:
        headers = {} if body is None else {"Content-Type": "application/json"}
        answer = await here.client.request(method, path, params=query, content=body, headers=headers)
        if (answer.status_code in (404, 405) and "nothing at" in answer.text) or answer.status_code == 405:
            continue  # an id that makes another path of it
        if answer.status_code == 503:
            assert answer.json()["title"] == "NotCaughtUp"
            continue
        check(answer, operation, whole)
    assert len(asked) >= 20
