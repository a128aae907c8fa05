"""Every endpoint rejects requests without a token that is valid and allows them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from support.callers import People
from support.endpoints import BODIES, endpoints
from support.eventsource import EventSource
from support.scrapes import rejections, scrape
from support.serving import Served
from support.waiting import SECONDS, seconds_of_delay

from agent_manager.auth import TokenScope
from agent_manager.server.authorization import AuthorizedRoute

pytestmark = pytest.mark.shared_database

OPEN = {"/health", "/ready"}


@pytest.mark.any_server
def test_an_endpoint_without_a_kind_of_data_cannot_be_created() -> None:
    router = APIRouter(route_class=AuthorizedRoute)
    with pytest.raises(TypeError, match="kind of data"):
        router.get("/anything")(lambda: None)


async def types_of_log(person: Any) -> list[str]:
    """The types of the events in the log of a person's tenant that are no administrative acts."""
    types = [event["event_type"] for event in (await person.get("/v1/log")).json()["items"]]
    return [each for each in types if not each.startswith("eventstore.")]


async def test_the_tests_cover_every_endpoint(here: Served) -> None:
    """The tests below cover all endpoints that there are."""
    described = (await here.client.get("/openapi.json")).json()
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    documented = {
        (method.upper(), path): operation["security"]
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    known = {(each.method, each.path): [{"token": [each.needs]}] if each.needs else [] for each in endpoints()}
    assert documented == known
    assert {path for _, path in known} & OPEN == {path for (_, path), rule in known.items() if not rule}
    assert {place for place in known if place[0] in ("POST", "PATCH")} == BODIES.keys()


@pytest.mark.slow
async def test_a_request_without_a_valid_token_is_rejected(protected: Served, people: People) -> None:
    ana = await people.person("acme", "ana", *TokenScope)
    trip = (await ana.post("/v1/conversations", {"id": "trip"})).json()["id"]
    bad: dict[str, Any] = {
        "none": {},
        "another scheme": {"Authorization": "Basic YW5hOmFuYQ=="},
        "empty": {"Authorization": "Bearer"},
        "no token": {"Authorization": "Bearer es_x_y"},
        "forged": {"Authorization": f"Bearer {ana.token[:-2]}AA"},
        "more": {"Authorization": f"Bearer {ana.token} x"},
        "a JWT of nobody": {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJhY21lIiwic3ViIjoiYW5hIn0."},
    }
    answers = set()
    for endpoint in endpoints():
        for kind, headers in bad.items():
            answer = await endpoint.request(protected.client, trip, headers=headers)
            if endpoint.needs is None:
                assert answer.status_code == 200, endpoint
                continue
            assert answer.status_code == 401, (endpoint, kind, answer.text)
            assert answer.headers["www-authenticate"].startswith('Bearer realm="eventstore"'), (endpoint, kind)
            assert ana.token[4:16] not in answer.text
            if "invalid_token" in answer.headers["www-authenticate"] and endpoint.path.startswith("/v1"):
                answers.add(answer.text.replace(answer.headers["x-request-id"], ""))
    assert len(answers) == 1, "the answer tells bad tokens apart"
    assert await types_of_log(ana) == ["conversation.created"], "something was written"
    assert await rejections(protected.server_context.metrics, "no_token") > 0
    assert await rejections(protected.server_context.metrics, "bad_token") > 0


async def test_a_request_with_two_tokens_is_rejected(protected: Served, people: People) -> None:
    ana = await people.person("acme", "ana")
    headers = [("Authorization", f"Bearer {ana.token}"), ("Authorization", f"Bearer {ana.token}")]
    assert (await protected.client.get("/v1/conversations", headers=headers)).status_code == 401


async def test_a_token_in_the_url_is_not_accepted(protected: Served, people: People) -> None:
    ana = await people.person("acme", "ana")
    for name in ("token", "access_token", "authorization", "api_key"):
        assert (await protected.client.get("/v1/agents", params={name: ana.token})).status_code == 401


@pytest.mark.slow
async def test_a_request_beyond_the_scopes_of_its_token_is_rejected(protected: Served, people: People) -> None:
    ana = await people.person("acme", "ana", *TokenScope)
    trip = (await ana.post("/v1/conversations", {"id": "trip"})).json()["id"]
    lacking = {scope: await people.person("acme", "ana", *(set(TokenScope) - {scope})) for scope in TokenScope}
    for endpoint in endpoints():
        if endpoint.needs is None:
            continue
        answer = await endpoint.request(lacking[endpoint.needs].client, trip)
        assert answer.status_code == 403, (endpoint, answer.text)
        assert f'error="insufficient_scope", scope="{endpoint.needs}"' in answer.headers["www-authenticate"]
        assert f"the scope {endpoint.needs} is needed" in answer.text
    assert await types_of_log(ana) == ["conversation.created"], "something was written"


async def test_a_missing_scope_is_reported_before_the_body_is_read(protected: Served, people: People) -> None:
    reader = await people.person("acme", "ana", TokenScope.READ)
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {reader.token}"}, 403)):
        answer = await protected.client.post("/v1/conversations", content=b"no JSON {", headers=headers)
        assert answer.status_code == status


async def test_on_loopback_no_token_is_needed_but_one_that_is_sent_is_checked(here: Served) -> None:
    people = People(here.store, here.url)
    eve = await people.person("globex", "eve")
    await here.begin(id="trip")
    assert len((await here.client.get("/v1/conversations")).json()["items"]) == 1
    assert (await eve.get("/v1/conversations")).json()["items"] == []
    bad = await here.client.get("/v1/conversations", headers={"Authorization": "Bearer nonsense"})
    assert bad.status_code == 401
    await people.close()


@pytest.mark.slow
async def test_a_revoked_key_is_rejected_within_a_second_and_its_streams_end(protected: Served, people: People) -> None:
    ana, admin = await people.person("acme", "ana"), await people.person("acme", None)
    trip = (await ana.post("/v1/conversations", {"id": "trip"})).json()["id"]
    async with AsyncExitStack() as stack:
        endings = []
        for person in (ana, admin):
            for path in ("/v1/log/stream", f"/v1/conversations/{trip}/stream"):
                source = EventSource(protected.address, path, token=person.token)
                endings.append(asyncio.create_task((await stack.enter_async_context(source)).next()))
        await people.directory.revoke_key(ana.tenant, ana.key)

        async def is_rejected() -> bool:
            return (await ana.get("/v1/conversations")).status_code == 401

        assert await seconds_of_delay(is_rejected, "the revoked key is refused") < 1
        done, still_open = await asyncio.wait(endings[:2], timeout=SECONDS)
        assert not still_open
        for ending in done:
            with pytest.raises(EOFError):
                ending.result()
        appended = await admin.post(f"/v1/conversations/{trip}/messages", {"role": "user", "content": "still here"})
        assert (await endings[2]).name == "eventstore.key_revoked"
        assert (await endings[3]).id == appended.json()["position"]


async def test_every_response_has_the_security_headers(protected: Served, people: People) -> None:
    ana = await people.person("acme", "ana")
    answers: list[httpx.Response] = [
        await protected.client.get("/health"),
        await protected.client.get("/nowhere"),
        await protected.client.get("/v1/conversations"),
        await protected.client.put("/v1/conversations"),
        await ana.get("/v1/conversations"),
        await ana.post("/v1/conversations", {"nome": "x"}),
        await ana.post("/v1/conversations", {}, headers={"Origin": "https://evil.example"}),
        await protected.client.get("/openapi.json"),
    ]
    assert [each.status_code for each in answers] == [200, 404, 401, 405, 200, 422, 403, 200]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "authorization" in answer.headers["vary"].lower()
        assert answer.headers["cache-control"] in ("no-store", "private, no-cache")
        assert "strict-transport-security" not in answer.headers
        assert "server" not in answer.headers
    assert (await scrape(protected.server_context.metrics)).sum("eventstore_http_responses_total", status=401) == 1


async def test_positions_are_not_shown_without_a_token(protected: Served, here: Served) -> None:
    shown = (await protected.client.get("/ready")).json()
    assert shown == {"status": "ready", "horizon": None, "applied": None, "lag_seconds": None}
    assert (await here.client.get("/ready")).json()["horizon"] is not None


async def test_behind_a_proxy_any_host_name_is_accepted(protected: Served) -> None:
    assert (await protected.client.get("/health", headers={"Host": "store.example"})).status_code == 200


PROXY_HEADERS = [
    "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port",
    "X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded-Scheme", "X-Forwarded-Ssl", "X-Forwarded-By",
    "X-Forwarded", "X-Real-IP", "X-Real-Port", "Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP",
    "CF-Connecting-IP", "CF-Ray", "CF-IPCountry", "Fastly-Client-IP", "Fly-Client-IP", "X-Original-URL",
    "X-Original-Host", "X-Original-Forwarded-For", "X-Envoy-External-Address", "X-Azure-ClientIP", "X-ARR-LOG-ID",
    "X-AppEngine-User-IP", "CloudFront-Viewer-Address", "X-Amzn-Trace-Id", "CDN-Loop", "X-ProxyUser-Ip", "X-Scheme",
    "X-Host", "X_Forwarded_For",
]  # fmt: skip


@pytest.mark.slow
async def test_a_request_that_a_proxy_forwarded_needs_a_token(here: Served) -> None:
    for name in ("Accept", "X-Request-ID", "Traceparent", "Cookie"):
        assert (await here.client.get("/v1/conversations", headers={name: "x"})).status_code == 200, name
    for name in PROXY_HEADERS:
        for value in ("203.0.113.7", ""):
            passed_on = await here.client.get("/v1/conversations", headers={name.swapcase(): value})
            assert passed_on.status_code == 401, name
            assert passed_on.headers["www-authenticate"].startswith("Bearer")
        ready = await here.client.get("/ready", headers={name: "203.0.113.7"})
        assert ready.json()["horizon"] is None, name
