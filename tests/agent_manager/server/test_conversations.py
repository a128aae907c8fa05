"""Conversations over HTTP: begun, listed, read, changed and hidden; and as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from support.serving import Served

pytestmark = pytest.mark.shared_database


async def test_a_conversation_is_created_and_read(http: httpx.AsyncClient) -> None:
    made = await http.post("/v1/conversations", json={"name": "Trip", "metadata": {"a": 1}})
    assert made.status_code == 201
    assert (made.json()["name"], made.json()["metadata"], made.json()["version"]) == ("Trip", {"a": 1}, 1)
    read = await http.get(made.headers["Location"])
    assert (read.status_code, read.json()) == (200, made.json())


async def test_a_conversation_is_found_by_the_id_of_its_client(http: httpx.AsyncClient) -> None:
    made = (await http.post("/v1/conversations", json={"id": "my trip"})).json()
    assert (made["given_id"], UUID(made["id"]).version) == ("my trip", 5)
    for name in ("my trip", made["id"], made["id"].upper()):
        assert (await http.get(f"/v1/conversations/{name}")).json() == made


async def test_an_id_that_is_taken_is_a_conflict(http: httpx.AsyncClient) -> None:
    await http.post("/v1/conversations", json={"id": "mine"})
    again = await http.post("/v1/conversations", json={"id": "mine"})
    assert again.status_code == 409
    assert "'mine' already, at version 1" in again.json()["detail"]


async def test_a_conversation_is_renamed_archived_reactivated_and_hidden(here: Served) -> None:
    http, trip = here.client, await here.begin(name="Trip")
    path = f"/v1/conversations/{trip}"
    renamed = await http.patch(path, json={"name": "Journey"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "Journey")
    assert (await http.patch(path, json={"is_active": False, "actor": "ana"})).json()["is_active"] is False
    assert (await http.get("/v1/conversations", params={"active": True})).json()["items"] == []
    assert (await http.patch(path, json={"is_active": True})).json()["is_active"] is True

    assert (await http.delete(path, params={"actor": "ana"})).status_code == 204
    assert (await http.get("/v1/conversations")).json()["items"] == []
    [hidden] = (await http.get("/v1/conversations", params={"deleted": True})).json()["items"]
    assert (hidden["id"], hidden["is_deleted"]) == (trip, True)
    assert (await http.patch(path, json={"is_active": True})).json()["is_deleted"] is False
    actors = [event["actor"] for event in (await http.get(f"{path}/events")).json()["items"]]
    assert actors == ["", "", "ana", "", "ana", ""]


async def test_a_change_with_an_outdated_expected_version_is_a_conflict(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "hello")
    late = await here.client.patch(f"/v1/conversations/{trip}", json={"name": "Late", "expected_version": 1})
    assert late.status_code == 409
    assert (late.json()["expected_version"], late.json()["actual_version"]) == (1, 2)
    assert (await here.client.get(f"/v1/conversations/{trip}")).json()["name"] == "Trip"
    now = await here.client.patch(f"/v1/conversations/{trip}", json={"name": "Now", "expected_version": 2})
    assert now.status_code == 200


@pytest.mark.parametrize("newest_first", [True, False])
async def test_conversations_are_paged(here: Served, newest_first: bool) -> None:
    made = [await here.begin(name=f"{number}") for number in range(7)]
    asked: dict[str, Any] = {"by": "created", "newest_first": newest_first, "limit": 3}
    pages: list[int] = []
    read: list[str] = []
    while True:
        page = (await here.client.get("/v1/conversations", params=asked)).json()
        pages.append(len(page["items"]))
        read += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        asked["after"] = page["next"]
    assert pages == [3, 3, 1]
    assert read == (made[::-1] if newest_first else made)


async def test_a_cursor_of_another_list_is_rejected(here: Served) -> None:
    for number in range(3):
        await here.begin(name=f"{number}")
    page = (await here.client.get("/v1/conversations", params={"limit": 1})).json()
    refused = await here.client.get("/v1/tasks", params={"limit": 1, "after": page["next"]})
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:eventstore:invalid-cursor")


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_conversation_is_not_found(http: httpx.AsyncClient, method: str) -> None:
    body = {"json": {"name": "x"}} if method == "PATCH" else {}
    for name in ("nobody", str(uuid4())):
        missing = await http.request(method, f"/v1/conversations/{name}", **body)  # type: ignore[arg-type]
        assert (missing.status_code, missing.json()["type"]) == (404, "urn:eventstore:not-found")
        assert name in missing.json()["detail"]


@pytest.mark.parametrize("kind", ["version", "position", "time"])
async def test_a_conversation_is_read_as_of_a_point_in_the_past(here: Served, kind: str) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "hello")
    await here.client.patch(f"/v1/conversations/{trip}", json={"name": "Journey"})
    path = f"/v1/conversations/{trip}"
    events = (await here.client.get(f"{path}/events")).json()["items"]
    at = {"version": 2, "position": events[1]["position"], "time": events[1]["timestamp"]}[kind]
    was = (await here.client.get(f"{path}/state", params={kind: at})).json()
    assert (was["conversation"]["name"], [message["content"] for message in was["messages"]]) == ("Trip", ["hello"])
    now = (await here.client.get(f"{path}/state")).json()
    assert (now["conversation"]["name"], now["messages"], now["tasks"]) == ("Journey", was["messages"], [])


async def test_only_one_point_in_the_past_can_be_given(here: Served) -> None:
    trip = await here.begin()
    both = await here.client.get(f"/v1/conversations/{trip}/state", params={"version": 1, "position": 1})
    assert (both.status_code, "at most one" in both.json()["detail"]) == (422, True)
    later = await here.client.get(f"/v1/conversations/{trip}/state", params={"version": 2})
    assert (later.status_code, "is at version 1" in later.json()["detail"]) == (404, True)


async def test_a_time_without_an_offset_is_in_utc(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/Sao_Paulo")
    trip = await here.begin(name="Trip")
    begun = datetime.fromisoformat((await here.client.get(f"/v1/conversations/{trip}")).json()["created_at"])
    for seconds, number in ((-1, 1), (1, 0)):
        since = begun.astimezone(UTC) + timedelta(seconds=seconds)
        in_brazil = since.astimezone(timezone(timedelta(hours=-3)))
        for text in (since.replace(tzinfo=None).isoformat(), since.isoformat(), in_brazil.isoformat()):
            listed = await here.client.get("/v1/conversations", params={"since": text})
            assert len(listed.json()["items"]) == number
    for text in ("", "yesterday", "1769850000", "2026-01-31T09:00 03:00"):
        refused = await here.client.get("/v1/conversations", params={"since": text})
        assert refused.status_code == 422
        assert "is not a time: write it as 2026-01-31" in refused.json()["errors"][0]["message"]
