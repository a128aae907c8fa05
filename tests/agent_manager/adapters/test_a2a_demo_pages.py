"""Pages of the demo's lists: together they are the list that its own client reads."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest
from support.callers import People
from support.serving import Served

from agent_manager.adapters import a2a_demo_lists
from eventstore import (
    ConversationCreated,
    ConversationDeleted,
    ConversationRewound,
    MessageAdded,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatusChanged,
    conversation_uuid,
)

pytestmark = pytest.mark.shared_database

CONVERSATIONS = 7
LISTS = {
    "conversation/list": {}, "events/get": {}, "task/list": {}, "message/list": {"conversation_id": "c1"},
}  # fmt: skip
every_list = pytest.mark.parametrize("method", LISTS)


async def call(http: httpx.AsyncClient, method: str, params: Any, status: int = 200, **headers: str) -> Any:
    answer = await http.post(f"/{method}", json={"jsonrpc": "2.0", "id": 1, "params": params}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()["result" if status == 200 else "error"]


async def whole(http: httpx.AsyncClient, method: str, **headers: str) -> list[Any]:
    """The list as the demo's client reads it."""
    listed: list[Any] = await call(http, method, LISTS[method].get("conversation_id"), **headers)
    return listed


async def pages(http: httpx.AsyncClient, method: str, limit: int, **headers: str) -> list[list[Any]]:
    """The pages of the list, each requested with the ``next`` of the one before."""
    found, after = [], {}
    while True:
        page = await call(http, method, LISTS[method] | {"limit": limit} | after, **headers)
        assert page.keys() == {"items", "next"}
        found.append(page["items"])
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


@pytest.fixture
async def filled(here: Served) -> Served:
    """Conversations in both versions of A2A with tasks, some of them deleted."""
    for number in range(CONVERSATIONS):
        task = uuid4()
        part: dict[str, Any] = {"text": f"text {number}"} if number == 4 else {"kind": "text", "text": f"text {number}"}
        role = {"role": "ROLE_USER"} if number == 4 else {}
        events = [
            *(MessageAdded(role="user", parts=[part], extra={"messageId": f"m{n}"} | role) for n in range(3 + number)),
            MessageAdded(role="user", content="without an id"),
            TaskCreated(task_id=task, given_id="t", description="x"),
            TaskArtifactAdded(task_id=task, artifact_id="a", parts=[part]),
            TaskStatusChanged(task_id=task, status="completed"),
            TaskCreated(task_id=uuid4(), given_id="t2", description="y"),
        ]
        if number in (0, 3, 6, CONVERSATIONS - 1):
            events.append(ConversationDeleted())
        await here.store.append(f"c{number}", events, begin=ConversationCreated(name=f"{number}"))
    return here


@every_list
@pytest.mark.parametrize("limit", [1, 3, 1000])
@pytest.mark.slow
async def test_the_pages_of_a_list_are_together_the_list(filled: Served, method: str, limit: int) -> None:
    for headers in ({"A2A-Version": "0.3"}, {"A2A-Version": "1.0"}, {}):
        listed = await whole(filled.client, method, **headers)
        assert len(listed) >= 4
        for _ in range(2):  # from the log, and from the cache
            found = await pages(filled.client, method, limit, **headers)
            assert [item for page in found for item in page] == listed
            assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
            assert sum(map(len, found)) == len(listed)
            assert found[-1], "the last page has something"


@every_list
async def test_a_page_stays_where_it_began_while_others_write(filled: Served, method: str) -> None:
    listed = await whole(filled.client, method)
    first = await call(filled.client, method, LISTS[method] | {"limit": 2})
    added = [MessageAdded(role="user", content="later"), TaskCreated(task_id=uuid4(), given_id="t3", description="z")]
    await filled.store.append("c1", added, begin=ConversationCreated())
    await filled.store.append("new", added, begin=ConversationCreated())
    rest = await call(filled.client, method, LISTS[method] | {"limit": 1000, "after": first["next"]})
    names = [str(item.get("conversation_id") or item.get("id") or item.get("messageId")) for item in listed]
    got = [
        str(item.get("conversation_id") or item.get("id") or item.get("messageId"))
        for item in [*first["items"], *rest["items"]]
    ]
    assert got[: len(names)] == names
    assert len(got) > len(names)


@pytest.mark.parametrize("method", ["conversation/list", "events/get", "task/list"])
async def test_pages_leave_out_what_was_deleted_after_it_was_read(filled: Served, method: str) -> None:
    before = await pages(filled.client, method, 2)
    assert (await filled.client.delete("/v1/conversations/c2")).status_code == 204
    after = await pages(filled.client, method, 2)
    assert [item for page in after for item in page] == await whole(filled.client, method)
    assert sum(map(len, after)) < sum(map(len, before))


@every_list
async def test_a_list_that_is_cached_forgets_what_a_conversation_hides(filled: Served, method: str) -> None:
    before = await whole(filled.client, method)
    for events in (
        [ConversationRewound(to_version=3)],
        [MessageAdded(role="user", content="later")],
        [ConversationRewound(to_version=2), MessageAdded(role="user", content="last")],
    ):
        await filled.store.append("c1", events, begin=ConversationCreated())
        listed = await whole(filled.client, method)
        assert listed == [item for page in await pages(filled.client, method, 2) for item in page]
    assert len(str(listed)) < len(str(before))
    assert ("last" in str(listed), "later" in str(listed)) == (method != "task/list", False)


@every_list
async def test_a_list_that_is_cached_forgets_what_is_erased(filled: Served, method: str) -> None:
    assert "text 1" in str(await whole(filled.client, method))
    conversation = conversation_uuid(filled.store.tenant, "c1")
    events = [event async for event in filled.store.read(conversation) if "text 1" in str(event.content)]
    await filled.store.erase(conversation, [event.id for event in events])
    listed = await whole(filled.client, method)
    assert "text 1" not in str(listed)
    assert listed == [item for page in await pages(filled.client, method, 2) for item in page]


@every_list
async def test_a_page_may_be_requested_in_the_query(filled: Served, method: str) -> None:
    first = await call(filled.client, method, LISTS[method] | {"limit": 2})
    params = {"limit": 2, "after": first["next"]}
    body = {"params": LISTS[method].get("conversation_id")}
    answer = await filled.client.post(f"/{method}", params=params, json=body)
    assert answer.json()["result"]["items"] == (await call(filled.client, method, LISTS[method] | params))["items"]


@every_list
async def test_a_page_ends_before_its_limit_if_it_is_large(
    filled: Served, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = await whole(filled.client, method, **{"A2A-Version": "0.3"})
    monkeypatch.setattr(a2a_demo_lists, "PAGE_BYTES", 300)
    found = await pages(filled.client, method, 1000, **{"A2A-Version": "0.3"})
    assert [item for page in found for item in page] == listed
    assert len(found) > 1


@every_list
async def test_a_page_that_cannot_be_requested_is_refused_by_name(filled: Served, method: str) -> None:
    for params, place in (
        ({"limit": 0}, "params.limit"), ({"limit": 1001}, "params.limit"), ({"limit": "x"}, "params.limit"),
        ({"limit": None}, "params.limit"), ({"after": 7}, "params.after"), ({"limit": 10**30}, "params.limit"),
    ):  # fmt: skip
        error = await call(filled.client, method, LISTS[method] | params, status=422)
        assert (error["code"], error["data"]["path"]) == (-32602, place)
    cursors = {each: (await call(filled.client, each, LISTS[each] | {"limit": 1}))["next"] for each in LISTS}
    other = next(cursor for each, cursor in cursors.items() if each != method)
    search = (await filled.client.get("/v1/messages", params={"limit": 1})).json()["next"]
    for cursor in ("", "x", "\u00e9", cursors[method][:-4], other, search):
        error = await call(filled.client, method, LISTS[method] | {"after": cursor}, status=400)
        assert (error["code"], error["data"]["type"]) == (-32602, "InvalidCursor")


@pytest.mark.parametrize("method", ["conversation/list", "events/get", "task/list"])
async def test_the_pages_of_a_user_hold_what_they_may_see(protected: Served, people: People, method: str) -> None:
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    for number in range(6):
        owner = ana if number % 3 else bob
        events = [
            {"event_type": "message.added", "content": {"role": "user", "content": f"{number}"}},
            {"event_type": "task.created", "content": {"task_id": str(uuid4()), "given_id": "t", "description": "x"}},
        ]
        made = await owner.post(f"/v1/conversations/c{number}/events", {"events": events, "begin": {}})
        assert made.status_code == 201, made.text
    found = await pages(ana.client, method, 1)
    assert [item for page in found for item in page] == await whole(ana.client, method)
    assert [len(page) for page in found] == [1] * (8 if method == "events/get" else 4)
    cursor = (await call(ana.client, method, {"limit": 1}))["next"]
    assert (await call(bob.client, method, {"limit": 1, "after": cursor}, status=400))["data"][
        "type"
    ] == "InvalidCursor"
