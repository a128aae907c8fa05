"""Values that cannot be stored or read, anywhere in a request, are refused by a problem, never by 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.endpoints import BODIES, Endpoint, endpoints
from support.serving import Served

pytestmark = pytest.mark.shared_database

WRITES = [each for each in endpoints() if (each.method, each.path) in BODIES]
PART = {"kind": "text", "text": "hello"}
MESSAGE = {
    "messageId": "m1", "role": "user", "parts": [PART], "contextId": "trip", "taskId": "t", "metadata": {"a": [1]}
}  # fmt: skip
EVENT = {
    "event_type": "message.added", "id": "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e", "actor": "ana",
    "content": {"role": "user", "content": "x", "parts": [PART], "metadata": {"a": 1}}, "metadata": {"a": 1},
}  # fmt: skip
FULL = BODIES | {
    ("POST", "/v1/conversations"): {"id": "a", "name": "n", "metadata": {"a": {"b": [1]}}, "actor": "ana"},
    ("POST", "/v1/conversations/{conversation}/messages"): MESSAGE | {"content": "hello"},
    ("POST", "/v1/conversations/{conversation}/send"): MESSAGE,
    ("POST", "/v1/conversations/{conversation}/events"): {
        "events": [EVENT], "begin": {"name": "n", "metadata": {"a": 1}}, "expected_version": 3,
    },
    ("POST", "/message/send"): {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": MESSAGE},
    ("POST", "/message/list"): {"jsonrpc": "2.0", "id": "1", "method": "message/list", "params": "trip"},
}  # fmt: skip
"""A body of each endpoint with values at every depth."""
REFUSED = {
    r'"a\u0000b"': 422, r'{"\u0000": 1}': 422, r'"\ud800"': 422, r'["\uDFFF x"]': 422, "NaN": 422, "-Infinity": 422,
    "[1e400]": 422, '{"a": 1, "b": 2, "a": 3}': 422, "9" * 5000: 400, "[" * 5000 + "]" * 5000: 400, "[1,]": 400,
    "'a'": 400, '"\t"': 400, "01": 400, "\ud800": 400,
}  # fmt: skip
"""JSON, or nearly, and the status of a body that contains it anywhere."""
ODD = (
    "null", "true", '""', "[]", "{}", "-0.0", "1.5", "9" * 400, "[null]", '{"": 1}', '"' + "x" * 70_000 + '"',
    "[" * 190 + "]" * 190, "[" * 250 + "]" * 250, '{"a":' * 250 + "1" + "}" * 250, r'"\ud83d\ude00"',
    '{"__proto__": {}}', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59+23:59"', '"\x7f\x80\xad\ufeff"',
)  # fmt: skip
"""JSON that some places take and others refuse."""


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value in a JSON value."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in members:
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[str | int, ...], text: str) -> bytes:
    """Return the JSON of a value with other JSON at a path."""

    def marked(value: Any, path: tuple[str | int, ...]) -> Any:
        if not path:
            return "@"
        members = dict(value) if isinstance(value, dict) else list(value)
        members[path[0]] = marked(members[path[0]], path[1:])
        return members

    whole = json.dumps(marked(value, path)).replace("{conversation}", "trip")
    return whole.replace('"@"', text).encode("utf-8", "surrogatepass")


async def send(here: Served, endpoint: Endpoint, body: bytes, **headers: str) -> tuple[int, str]:
    path = endpoint.path.replace("{conversation}", "trip")
    answer = await here.client.request(endpoint.method, path, content=body, headers=headers)
    if answer.status_code >= 400:
        problem = answer.json()
        assert "detail" in problem or problem["error"]["message"], answer.text
    return answer.status_code, answer.text


async def begun(here: Served) -> None:
    await here.begin(id="trip", name="n")
    await here.say("trip", "hello")


@pytest.mark.parametrize("endpoint", WRITES, ids=lambda each: f"{each.method} {each.path}")
@pytest.mark.slow
async def test_what_cannot_be_stored_is_refused_wherever_it_is_in_a_body(here: Served, endpoint: Endpoint) -> None:
    await begun(here)
    version = (await here.client.get("/v1/conversations/trip")).json()["version"]
    body = FULL[endpoint.method, endpoint.path]
    for path in places(body):
        for text, status in REFUSED.items():
            answer = await send(here, endpoint, replaced(body, path, text), **{"Content-Type": "application/json"})
            assert answer[0] == status, (path, text[:40], answer)
    assert (await here.client.get("/v1/conversations/trip")).json()["version"] == version, "something was written"


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", WRITES, ids=lambda each: f"{each.method} {each.path}")
async def test_no_value_in_a_body_causes_a_server_error(here: Served, endpoint: Endpoint) -> None:
    await begun(here)
    body = FULL[endpoint.method, endpoint.path]
    for path in places(body):
        for text in ODD:
            answer = await send(here, endpoint, replaced(body, path, text), **{"Content-Type": "application/json"})
            assert answer[0] < 500 or "AgentUnreachable" in answer[1], (path, text[:40], answer)
    for each in endpoints():
        is_read = each.method == "GET" and not each.is_endless and each.needs is not None
        if is_read and "{" not in each.path.replace("{conversation}", ""):
            assert (await each.request(here.client, "trip")).status_code == 200, each


@pytest.mark.parametrize("path", ["/v1/conversations", "/conversation/create", "/v1/conversations/trip/events"])
async def test_no_depth_of_nesting_causes_a_server_error(here: Served, path: str) -> None:
    await begun(here)
    for depth in (*range(100, 800, 100), *range(800, 1000, 10)):
        for opening, closing in (("[", "]"), ('{"a":', "}"), ("[", r'"\ud83d\ude00"' + "]")):
            value = opening * depth + ("" if closing[0] == '"' else "1") + closing + closing[-1] * (depth - 1)
            body = f'{{"metadata": {value}, "events": [{{"event_type": "a", "content": {value}}}]}}'
            headers = {"Content-Type": "application/json", "Idempotency-Key": f"{depth}{closing}"}
            answer = await here.client.post(path, content=body, headers=headers)
            assert answer.status_code < 500, (depth, opening, answer.text)


async def test_the_place_of_what_cannot_be_stored_is_named(here: Served) -> None:
    await begun(here)
    events = next(each for each in WRITES if each.path.endswith("/events"))
    json_type = {"Content-Type": "application/json"}
    body = FULL[events.method, events.path]
    for text, what in ((r'"\u0000"', "NUL"), ("NaN", "nan"), (r'"\udfff"', "surrogate")):
        reply = (
            await send(here, events, replaced(body, ("events", 0, "content", "metadata", "a"), text), **json_type)
        )[1]
        assert json.loads(reply)["path"] == "events[0].content.metadata.a"
        assert what in json.loads(reply)["detail"]
    assert "'a'" in (await send(here, events, b'{"a": 1, "a": 2}', **json_type))[1]


@pytest.mark.parametrize("endpoint", WRITES, ids=lambda each: f"{each.method} {each.path}")
async def test_a_body_that_is_not_sent_as_json_is_refused_by_its_type(here: Served, endpoint: Endpoint) -> None:
    await begun(here)
    body = replaced(BODIES[endpoint.method, endpoint.path], (), json.dumps(BODIES[endpoint.method, endpoint.path]))
    body = body.replace(b"{conversation}", b"trip")
    for headers, named in (
        ({}, "is missing"),
        ({"Content-Type": "text/plain;charset=UTF-8"}, "'text/plain;charset=UTF-8'"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "'application/x-www-form-urlencoded'"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "multipart"),
        ({"Content-Type": "application/jsonx"}, "jsonx"),
        ({"Content-Type": "json"}, "json"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "gzip"),
    ):
        status, reply = await send(here, endpoint, body, **headers)
        assert (status, named in reply, "application/json" in reply or "encoding" in reply) == (415, True, True), reply
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/a2a+json"):
        status, reply = await send(here, endpoint, body, **{"Content-Type": kind})
        assert status < 400 or status in (404, 409) or "AgentUnreachable" in reply, (kind, reply)


@pytest.mark.parametrize("endpoint", endpoints(), ids=lambda each: f"{each.method} {each.path}")
async def test_a_nul_character_in_a_path_or_a_query_is_refused(here: Served, endpoint: Endpoint) -> None:
    for text, status in (("%00", 422), ("a%00b", 422), ("%ff", 400), ("%ed%a0%80", 400)):
        paths = [f"{endpoint.path}?q=a&x={text}", f"{endpoint.path}?{text}=1"]
        paths += [endpoint.path.replace(name, text) for name in ("{conversation}", "{user}", "{file_id}")]
        for path in paths[:2] + [path for path in paths[2:] if path != endpoint.path]:
            answer = await here.client.request(endpoint.method, path)
            assert answer.status_code == status, (path, answer.text)
            assert "NUL" in answer.text or "UTF-8" in answer.text
