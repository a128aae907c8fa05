"""Errors over HTTP: each says what was wrong, as a problem (RFC 9457), under the status that fits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.environment import clear_settings
from support.serving import Served, served

from agent_manager.server.limits import largest_body
from agent_manager.server.problems import problem_of, status_of
from eventstore import EventStore, Settings, errors
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.errors import EventStoreError

pytestmark = pytest.mark.shared_database


def all_errors(kind: type[EventStoreError] = EventStoreError) -> Iterator[type[EventStoreError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


STATUSES = {
    "InputError": 422, "InvalidEvent": 422, "InvalidId": 422, "SettingsError": 422, "EventTooLarge": 413,
    "InvalidCursor": 400, "StoreClosed": 503, "NotFound": 404, "ConflictError": 409, "WrongExpectedVersion": 409,
    "EventIdConflict": 409, "RetryableError": 503, "ConversationLocked": 503,
    "DeadlockDetected": 503, "ProjectionChanged": 503,
    "NotCaughtUp": 503,
    "ServerUnreachable": 503, "ConnectionLost": 503, "EmbeddedServerError": 503, "DiskFull": 507, "SchemaMissing": 503,
    "StatementTimeout": 503, "Forbidden": 403,
    "PermissionDenied": 500, "UnsuitableServer": 500, "IsolationError": 500, "RebuildError": 500, "ServerError": 500,
}  # fmt: skip


@pytest.mark.any_server
@pytest.mark.parametrize("name", STATUSES)
def test_every_type_of_error_has_its_status(name: str) -> None:
    kind = getattr(errors, name)
    made = {
        "InvalidEvent": lambda: kind("a.b", "is wrong"), "EventTooLarge": lambda: kind("content", 2, 1),
        "WrongExpectedVersion": lambda: kind("c", 1, 2), "ConversationLocked": lambda: kind("c", 30),
        "EventIdConflict": lambda: kind("c", "e"), "StoreClosed": kind,
    }.get(name, lambda: kind("it is so"))()  # fmt: skip
    answer = problem_of(made)
    problem = json.loads(answer.body)
    assert (answer.status_code, problem["status"], problem["title"]) == (STATUSES[name], STATUSES[name], name)
    assert problem["detail"] == str(made)
    assert answer.media_type == "application/problem+json"
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)


@pytest.mark.any_server
def test_no_type_of_error_lacks_a_status() -> None:
    for kind in all_errors():
        assert 400 <= status_of(kind.__new__(kind)) < 600


async def test_a_body_that_is_not_json_is_a_bad_request(here: Served) -> None:
    for body in (b"{", b"\xff", b"[" * 100_000, b'{"name": 1e}'):
        refused = await here.client.post(
            "/v1/conversations", content=body, headers={"Content-Type": "application/json"}
        )
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json"), refused.text


@pytest.mark.parametrize(
    ("method", "path", "body", "where", "name"),
    [
        ("POST", "/v1/conversations", {"nome": "x"}, "body", "nome"),
        ("POST", "/v1/conversations", {"name": "x" * 256}, "body", "name"),
        ("POST", "/v1/conversations", [1], "body", ""),
        ("GET", "/v1/conversations?limt=3", None, "query", "limt"),
        ("GET", "/v1/conversations?limit=0", None, "query", "limit"),
        ("GET", "/v1/messages?since=yesterday", None, "query", "since"),
        ("GET", "/v1/messages?role=king", None, "query", "role"),
        ("GET", "/v1/log?after=99999999999999999999", None, "query", "after"),
        ("GET", "/v1/search", None, "query", "q"),
    ],
)
async def test_an_error_names_the_invalid_input(
    here: Served, method: str, path: str, body: Any, where: str, name: str
) -> None:
    refused = await here.client.request(method, path, **({} if body is None else {"json": body}))
    assert refused.status_code == 422
    [wrong] = refused.json()["errors"]
    assert (wrong["where"], wrong["name"]) == (where, name)


async def test_an_unknown_path_is_not_found_and_a_wrong_method_is_not_allowed(here: Served) -> None:
    nowhere = await here.client.get("/v2/anything")
    assert (nowhere.status_code, nowhere.json()["detail"]) == (404, "there is nothing at /v2/anything")
    wrong = await here.client.put("/v1/conversations", json={})
    assert (wrong.status_code, wrong.json()["title"]) == (405, "Method Not Allowed")
    assert wrong.headers["allow"] == "GET, POST"
    assert (await here.client.post("/v1/conversations/trip")).headers["allow"] == "DELETE, GET, PATCH"


async def test_a_body_that_is_too_large_is_rejected_before_it_is_read(here: Served) -> None:
    limit = largest_body(here.store.settings)

    async def endless() -> Any:
        for _ in range(limit // 100_000 + 2):
            yield b" " * 100_000

    for path in ("/v1/conversations", "/message/send"):
        for content in (b" " * (limit + 1), endless()):
            try:
                refused = await here.client.post(path, content=content, headers={"Content-Type": "application/json"})
            except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
                continue  # the server closed before the client had sent everything
            assert refused.status_code == 413


async def test_a_page_of_another_origin_cannot_change_anything(here: Served) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site", "Origin": here.url},
    ):
        refused = await here.client.post("/conversation/create", headers=headers)
        assert refused.status_code == 403
    for headers in ({}, {"Origin": here.url}, {"Sec-Fetch-Site": "same-origin", "Origin": here.url}):
        assert (await here.client.post("/conversation/create", headers=headers)).status_code == 200
    assert len((await here.client.get("/v1/conversations")).json()["items"]) == 3


async def test_on_loopback_a_foreign_host_name_is_rejected(here: Served) -> None:
    for name in ("rebound.example", "rebound.example:80", "127.0.0.1.evil.example", ""):
        assert (await here.client.get("/health", headers={"Host": name})).status_code in (400, 421)
    for name in ("localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8080"):
        assert (await here.client.get("/health", headers={"Host": name})).status_code == 200


async def test_without_a_worker_a_read_includes_what_was_just_written(store: EventStore) -> None:
    async with served(store, works=False) as here:
        trip = await here.begin(name="Trip")
        await here.say(trip, "hello")
        [message] = (await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]
        assert message["content"] == "hello"


async def test_a_position_beyond_the_log_is_awaited_and_then_reported(here: Served) -> None:
    here.server_context.reader.timeout = 0.2
    for at_least in (10, 2**62):
        behind = await here.client.get("/v1/conversations", params={"at_least": at_least})
        assert (behind.status_code, behind.json()["title"], behind.headers["retry-after"]) == (503, "NotCaughtUp", "1")


@pytest.mark.slow
async def test_an_unavailable_database_is_reported_until_it_is_back(
    own_server: EmbeddedServer, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear_settings(monkeypatch)
    settings = Settings(database_url=own_server.url(), connect_timeout=1)  # type: ignore[arg-type]
    await asyncio.to_thread(Migrator(own_server.url(), settings).up)
    async with EventStore(settings) as store, served(store) as here:
        await here.begin(id="trip")
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGQUIT)
        for method, path, body in (
            ("GET", "/v1/conversations", None),
            ("POST", "/v1/conversations", {}),
            ("POST", "/conversation/list", {}),
            ("POST", "/message/send", {"params": {"messageId": "m", "role": "user", "parts": []}}),
            ("GET", "/ready", None),
        ):
            away = await here.client.request(method, path, **({} if body is None else {"json": body}))
            assert (away.status_code, away.headers["retry-after"]) == (503, "1"), (path, away.text)
        assert (await here.client.get("/health")).status_code == 200
