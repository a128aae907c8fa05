"""A file of 8 MiB, as phones send them, goes in and comes out everywhere; statements and streams read few at a time."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.commandline import Eventstore, rows_of
from support.eventsource import EventSource
from support.serving import Served, served

from agent_manager.agents import echo
from agent_manager.server.limits import MAX_CONTAINERS
from eventstore import Event, EventStore, MessageAdded, Settings, SyncEventStore, conversation_uuid
from eventstore.read import in_batches
from projections import Reader, catch_up

pytestmark = pytest.mark.shared_database

PHOTO = base64.b64encode(os.urandom(8 * 2**20)).decode()


def message(message_id: str, data: str = PHOTO) -> dict[str, Any]:
    file = {"bytes": data, "mimeType": "image/jpeg", "name": "lisbon.jpg"}
    parts = [{"kind": "text", "text": "a photo of Lisbon"}, {"kind": "file", "file": file}]
    return {"kind": "message", "role": "user", "messageId": message_id, "parts": parts}


@pytest.mark.slow
async def test_a_photo_is_appended_answered_paged_streamed_and_found(store: EventStore) -> None:
    async with served(store, answer=echo()) as here:
        trip = await here.begin()
        sent = await here.client.post(f"/v1/conversations/{trip}/send", json=message("m1"))
        assert sent.status_code == 202, sent.text
        async with EventSource(here.address, f"/v1/conversations/{trip}/stream?after=0") as source:
            while (event := await source.next()).name != "message.answered":
                if event.name == "message.added":
                    assert event.data["content"]["parts"][1]["file"]["bytes"] == PHOTO
            assert event.data["content"]["outcome"] == "answered"
        found = []
        path, after = f"/v1/conversations/{trip}/messages", ""
        while after is not None:  # a page ends with what it has of a large row
            page = (await here.client.get(path, params={"after": after} if after else None)).json()
            found += page["items"]
            after = page["next"]
        assert [each["sent"]["parts"][1]["file"]["bytes"] == PHOTO for each in found] == [True, True]
        hits = (await here.client.get("/v1/search", params={"q": "lisbon photo"})).json()["items"]
        assert len(hits) == 2
        assert not (await here.client.get("/v1/search", params={"q": PHOTO[:40]})).json()["items"]


@pytest.fixture
async def limited(settings: Settings) -> AsyncIterator[Served]:
    """A server of a store whose events have 64 KiB at most."""
    limited = settings.model_copy(update={"max_content_bytes": 64 * 1024})
    async with EventStore(limited) as store, served(store) as here:
        yield here


@pytest.mark.parametrize("name", ["messages", "send"])
async def test_a_note_replaces_a_file_that_is_too_large_and_the_rest_goes_in(limited: Served, name: str) -> None:
    here, trip = limited, await limited.begin()
    limit = here.store.settings.max_content_bytes
    small = {"kind": "file", "file": {"bytes": "AAAA", "mimeType": "image/png", "name": "small.png"}}
    text, large = message("m1", "A" * limit)["parts"]
    sent = message("m1") | {"parts": [text, large, small]}
    for _ in range(2):  # a message that is sent again is the same one
        accepted = await here.client.post(f"/v1/conversations/{trip}/{name}", json=sent)
        assert accepted.status_code == (201 if name == "messages" else 202), accepted.text
        [note] = accepted.json()["not_stored"]
        assert f"[not stored: a part (image/jpeg, lisbon.jpg) of {limit * 3 // 4:,} bytes" in note
        assert "raise EVENTSTORE_MAX_CONTENT_BYTES" in note
    [item, *repeated] = (await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]
    assert len(repeated) == (name == "messages")
    assert item["sent"]["parts"][0] == text
    assert (item["sent"]["parts"][1]["kind"], item["sent"]["parts"][1]["text"]) == ("text", note)
    assert item["sent"]["parts"][2] == small
    assert item["content"] == f"{text['text']}\n{note}"
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * limit}"}}
    sent = {"role": "user", "content": [{"type": "text", "text": "look"}, image]}
    accepted = await here.client.post(f"/v1/conversations/{trip}/{name}", json=sent)
    [note] = accepted.json()["not_stored"]
    items = (await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]
    assert items[-1]["sent"]["content"][0] == sent["content"][0]
    assert (items[-1]["sent"]["content"][1]["type"], items[-1]["sent"]["content"][1]["text"]) == ("text", note)


@pytest.mark.parametrize("name", ["messages", "send"])
async def test_what_has_no_file_to_leave_out_is_rejected_with_the_setting_that_allows_it(
    limited: Served, name: str
) -> None:
    here, trip = limited, await limited.begin()
    limit = here.store.settings.max_content_bytes
    for rejected in (
        {"role": "user", "content": "A" * limit},
        {"role": "user", "parts": [{"text": "A" * limit}, message("m1", "AAAA")["parts"][1]]},
        message("m1", "A" * (limit * 5 // 4 + 65536)),
    ):
        refused = await here.client.post(f"/v1/conversations/{trip}/{name}", json=rejected)
        assert refused.status_code == 413
        assert "EVENTSTORE_MAX_CONTENT_BYTES" in refused.json()["detail"]
    assert (await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"] == []


async def test_a_body_of_too_many_values_is_rejected_before_it_is_parsed(here: Served) -> None:
    trip = await here.begin()
    body = b"[" + b"{}," * MAX_CONTAINERS + b"1]"
    headers = {"Content-Type": "application/json"}
    refused = await here.client.post(f"/v1/conversations/{trip}/messages", content=body, headers=headers)
    assert (refused.status_code, "1,000,000 objects" in refused.json()["detail"]) == (413, True)


@pytest.mark.slow
async def test_statements_and_batches_end_with_the_first_large_rows(store: EventStore) -> None:
    """Each of five messages is larger than a statement, a page's chunk and a batch; all are read, in order."""
    trip = conversation_uuid(store.tenant, "trip")
    await store.append(trip, [MessageAdded(role="user", content="small")])
    parts = [{"kind": "data", "data": {"noise": base64.b64encode(os.urandom(3 * 2**20)).decode()}}]
    for number in range(5):
        await store.append(trip, [MessageAdded(role="user", parts=[*parts, {"text": str(number)}])])
    await catch_up(store)
    for backwards in (False, True):
        events = [event.version async for event in store.read(trip, backwards=backwards)]
        assert events == sorted(range(1, 7), reverse=backwards)
    assert [event.version async for event in store.read_log()] == list(range(1, 7))
    assert [row.version for row in await Reader(store).messages(trip)] == list(range(1, 7))
    asked: list[int] = []

    def read(after: int, limit: int) -> Any:
        asked.append(limit)
        return store.read(trip, after=after, limit=limit)

    found: list[Event] = [event async for event in in_batches(read, 0, lambda event: event.version, 64 * 1024)]
    assert [event.version for event in found] == list(range(1, 7))
    assert max(asked[1:]) <= 2
    pages = []
    after: str | None = None
    while True:
        page = await Reader(store).messages(trip, limit=100, after=after)
        pages.append(len(page))
        if (after := page.next) is None:
            break
    assert sum(pages) == 6
    assert max(pages) < 6


@pytest.mark.slow
def test_a_photo_survives_an_import_and_a_rebuild(empty: Eventstore, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    conversation = {"id": "trip", "messages": [message("m1"), {"role": "user", "content": "and this?"}]}
    file.write_text(json.dumps(conversation) + "\n")
    assert empty("import", str(file)).code == 0
    with SyncEventStore(settings) as store:
        store.portal.call(catch_up(store.asynchronous))
    for _ in range(2):
        [photo, _] = rows_of(empty, "messages", "trip")
        assert photo["sent"]["parts"][1]["file"]["bytes"] == PHOTO
        assert empty("rebuild", "messages").code == 0
    assert empty("verify").code == 0
