"""The pages of conversations: the list, search, the chat, what it was, changes, and hostile texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.console import Visitor
from support.eventsource import EventSource
from support.serving import Served

from agent_manager.console import history
from agent_manager.console.rendering import markdown

pytestmark = pytest.mark.shared_database

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


async def append(here: Served, conversation: str, *events: dict[str, Any]) -> None:
    done = await here.client.post(f"/v1/conversations/{conversation}/events", json={"events": events})
    assert done.status_code == 201, done.text


@pytest.mark.slow
async def test_the_list_is_searched_filtered_and_continued(here: Served) -> None:
    for number in range(60):
        await here.begin(name=f"Number {number}")
    trip = await here.begin(name="Trip")
    await here.say(trip, "a train to Lisbon")
    async with Visitor(here.url) as visitor:
        page = await visitor.get("conversations")
        assert page.count('class="row"') == 50
        following = page.partition('hx-get="?')[2].partition('"')[0].replace("&amp;", "&")
        rest = await visitor.get(f"conversations?{following}", hx_request="true", hx_target="more")
        assert rest.count('class="row"') == 11
        assert "<html" not in rest, "only the rows"
        found = await visitor.get("conversations?q=lisbon")
        assert "<mark>Lisbon</mark>" in found
        assert f"conversations/{trip}?from=2#m2" in found
        assert len(found) < 100_000
        as_typed = await visitor.get("conversations?q=train+lisb")
        assert "<mark>Lisbon</mark>" in as_typed
        assert "Searched for" not in as_typed
        for state in ("archived", "deleted", "failed"):
            assert "Number" not in await visitor.get(f"conversations?state={state}")
        assert "Lisbon" not in await visitor.get("conversations?q=lisbon&state=archived")
        assert "Nothing was found" in await visitor.get("conversations?q=nowhere")
        await visitor.get("conversations?since=yesterday", status=422)
        listed = json.loads(await visitor.get("conversations.json"))
        assert listed["items"][0]["name"] == "Trip"


async def test_a_chat_shows_markdown_tools_with_their_results_files_and_tasks(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "**Book** it")
    call = {"id": "c1", "type": "function", "function": {"name": "book_train", "arguments": '{"to": "Lisbon"}'}}
    await here.say(trip, "", role="assistant", content=None, tool_calls=[call])
    await here.say(trip, "AP-2291", role="tool", tool_call_id="c1")
    image = {"kind": "file", "file": {"name": "plan.png", "mimeType": "image/png", "bytes": "aGVsbG8="}}
    remote = {"kind": "file", "file": {"name": "far.png", "mimeType": "image/png", "uri": "https://far.example/x.png"}}
    parts = [{"kind": "text", "text": "the plan"}, image, remote, {"kind": "data", "data": {"guests": 12}}]
    await here.client.post(
        f"/v1/conversations/{trip}/messages", json={"messageId": "m", "role": "user", "parts": parts}
    )
    task = "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"
    await append(
        here,
        trip,
        {"event_type": "task.created", "content": {"task_id": task, "description": "Book the train"}},
        {"event_type": "task.status_changed", "content": {"task_id": task, "status": "failed"}},
    )
    async with Visitor(here.url) as visitor:
        page = await visitor.get(f"conversations/{trip}")
        assert "<strong>Book</strong> it" in page
        call_part = page.partition("book_train")[2].partition("</details>")[0]
        assert "AP-2291" in call_part, "the result stands with its call"
        assert page.count('class="message ') == 3
        assert page.count("<img") == 1, "nothing remote is loaded"
        path = page.partition('<img src="../')[2].partition('"')[0]
        shown = await visitor.client.get(path)
        assert (shown.content, shown.headers["content-type"]) == (b"hello", "image/png")
        assert "sandbox" in shown.headers["content-security-policy"]
        assert '<details class="task failed"' in page
        assert page.index("guests") < page.index('class="ended failed"'), "the end of a task stands after the messages"
        listed = await visitor.get("conversations?state=failed")
        assert f'href="./conversations/{trip}?from=1#t{task}"' in listed
        assert "Book the train" in listed
        assert trip not in await visitor.get("conversations?state=failed&actor=nobody")
        download = await visitor.client.get(f"{path}?download=true")
        assert (download.content, download.headers["content-disposition"]) == (
            b"hello", "attachment; filename*=UTF-8''plan.png",
        )  # fmt: skip
        whole = await visitor.get(f"conversations/{trip}/messages/5")
        assert "&#34;messageId&#34;" in whole
        exported = await visitor.client.get(f"conversations/{trip}/export.json")
        assert exported.headers["content-disposition"].startswith("attachment")
        assert exported.json()["messages"][0]["content"] == "**Book** it"


async def test_parts_of_artifacts_are_downloaded(here: Served) -> None:
    trip = await here.begin(name="Trip")
    task = "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"
    page_of_html = {"kind": "file", "file": {"name": "a.html", "mimeType": "text/html", "bytes": "PGI+aGk8L2I+"}}
    remote = {"kind": "file", "file": {"name": "far.png", "uri": "https://far.example/x.png"}}
    parts = [{"kind": "text", "text": "# Plan"}, page_of_html, {"kind": "data", "data": {"rooms": 12}}, remote]
    await append(
        here,
        trip,
        {"event_type": "task.created", "content": {"task_id": task, "description": "Plan"}},
        {
            "event_type": "task.artifact_added",
            "content": {"task_id": task, "artifact_id": "a", "name": "plan", "parts": parts},
        },
    )
    base = f"conversations/{trip}/tasks/{task}/artifacts"
    async with Visitor(here.url) as visitor:
        page = await visitor.get(f"conversations/{trip}")
        expected = [
            (b"# Plan", "text/plain", "plan.txt"), (b"<b>hi</b>", "text/html", "a.html"),
            (b'{\n  "rooms": 12\n}', "application/json", "plan.json"),
        ]  # fmt: skip
        for number, (content, media_type, name) in enumerate(expected):
            assert f'href="../{base}/0/{number}" download' in page
            for version in ("", "?version=3"):
                file = await visitor.client.get(f"{base}/0/{number}{version}")
                assert (file.content, file.headers["content-type"]) == (content, media_type)
                assert file.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
                assert "sandbox" in file.headers["content-security-policy"]
        assert "https://far.example/x.png" in page
        for path in ("0/3", "0/9", "9/0", "0/0?version=2"):
            await visitor.get(f"{base}/{path}", status=404)


@pytest.mark.slow
async def test_a_long_conversation_is_read_from_its_end_and_from_any_message(here: Served) -> None:
    trip = await here.begin(name="Trip")
    said = [
        {"event_type": "message.added", "content": {"role": "user", "content": f"number {n} " + 900 * "x"}}
        for n in range(2, 202)
    ]
    await append(here, trip, *said)
    async with Visitor(here.url) as visitor:
        page = await visitor.get(f"conversations/{trip}")
        assert "number 201" in page
        assert len(page) < 100_000
        seen = page.count('class="message ')
        while cursor := page.partition('hx-get="?older=')[2].partition('"')[0]:
            page = await visitor.get(f"conversations/{trip}?older={cursor}", hx_request="true", hx_target="older")
            seen += page.count('class="message ')
        assert seen == 200
        deep = await visitor.get(f"conversations/{trip}?from=100")
        assert ("number 100 " in deep, "number 99 " in deep) == (True, False)
        past = await visitor.get(f"conversations/{trip}?version=100")
        assert ("number 100 " in past, "number 101 " in past) == (True, False)
        assert (
            json.loads(await visitor.get(f"conversations/{trip}.json?version=100"))["conversation"]["message_count"]
            == 99
        )
        middle = await visitor.get(f"conversations/{trip}?version=100&from=20")
        assert ("number 20 " in middle, "number 19 " in middle, "number 90 " in middle) == (True, False, False)
        changes = await visitor.get(f"conversations/{trip}/compare?a=50&b=120")
        assert ("number 51 " in changes, "number 50 " in changes) == (True, False)
        shown = changes.count('class="message ')
        assert f"and {70 - shown} further messages" in changes


@pytest.mark.slow
async def test_a_page_is_small_whatever_a_conversation_has(here: Served) -> None:
    trip = await here.begin(name="Trip")
    hostile = "<*a*&'\"_[" * 400
    tasks = [f"7b6c0e02-1f0e-4d0c-9a43-{number:012x}" for number in range(120)]
    parts = [{"kind": "text", "text": hostile}, {"kind": "data", "data": {"x": [hostile]}}]
    for task in tasks:
        await append(
            here,
            trip,
            {"event_type": "message.added", "content": {"role": "user", "content": hostile}},
            {"event_type": "task.created", "content": {"task_id": task, "description": hostile[:900]}},
            {
                "event_type": "task.artifact_added",
                "content": {"task_id": task, "artifact_id": "a", "name": hostile[:200], "parts": parts},
            },
            {
                "event_type": "task.status_changed",
                "content": {"task_id": task, "status": "failed", "message": {"role": "agent", "parts": parts}},
            },
        )
    async with Visitor(here.url) as visitor:
        for path in ("", "?version=400", "/events", "/compare?a=1"):
            page = await visitor.get(f"conversations/{trip}{path}")
            assert len(page.encode()) < 100_000, path
        assert "The latest 30" in await visitor.get(f"conversations/{trip}")


@pytest.mark.slow
async def test_the_past_is_shown_and_compared(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "to Lisbon")
    await here.client.patch(f"/v1/conversations/{trip}", json={"name": "Journey"})
    await here.say(trip, "to Porto")
    async with Visitor(here.url) as visitor:
        before = await visitor.get(f"conversations/{trip}?version=2")
        assert '<h1 id="title">Trip</h1>' in before
        assert "to Porto" not in before
        part = await visitor.get(f"conversations/{trip}?version=2", hx_request="true", hx_target="state")
        assert "to Lisbon" in part
        assert "<html" not in part
        changes = await visitor.get(f"conversations/{trip}/compare?a=2&b=4")
        assert "<del>Trip</del>" in changes
        assert "<ins>Journey</ins>" in changes
        assert ("to Porto" in changes, "to Lisbon" in changes) == (True, False)
        events = await visitor.get(f"conversations/{trip}/events")
        assert events.index("conversation.created") < events.index("conversation.renamed")
        named = json.loads(await visitor.get(f"conversations/{trip}/events.json?type=conversation.renamed"))
        assert [event["version"] for event in named["items"]] == [3]


async def test_a_page_that_is_looked_at_is_told_of_changes_and_takes_what_is_new(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "before")
    async with Visitor(here.url) as visitor:
        page = await visitor.get(f"conversations/{trip}")
        assert f'sse-connect="../conversations/{trip}/live?after=2"' in page
        async with EventSource(here.address, f"/console/conversations/{trip}/live?after=2") as stream:
            await here.say(trip, "meanwhile")
            event = await stream.next()
            assert (event.name, event.data) == ("change", 3)
        new = await visitor.get(f"conversations/{trip}?after=2", hx_request="true", hx_target="live")
        assert ("meanwhile" in new, "before" in new) == (True, False)
        assert 'id="seen" name="after" value="3" hx-swap-oob="true"' in new


async def test_a_burst_of_changes_is_told_to_a_page_a_few_times(here: Served) -> None:
    trip = await here.begin()
    async with EventSource(here.address, f"/console/conversations/{trip}/live?after=1") as stream:
        for number in range(40):
            await here.say(trip, f"number {number}")
        told = 1
        while (await stream.next()).data < 41:
            told += 1
        assert told < 20


@pytest.mark.slow
async def test_a_conversation_is_renamed_archived_shared_and_deleted(here: Served) -> None:
    trip = await here.begin(name="Trip")
    page = f"conversations/{trip}"
    async with Visitor(here.url) as visitor:
        assert '<h1 id="title">Journey</h1>' in await visitor.send(page, f"{page}/rename", name="Journey")
        assert "chip archived" in await visitor.send(page, f"{page}/state", is_active="false")
        assert "chip active" in await visitor.send(page, f"{page}/state", is_active="true")
        assert ">bob</a>" in await visitor.send(page, f"{page}/members", user="bob", access="write")
        assert "<li>bob" not in await visitor.send(page, f"{page}/members", user="bob", access="none")
        await visitor.send(page, f"{page}/members", status=422, user="", access="read")
        assert "chip deleted" in await visitor.send(page, f"{page}/delete")
        events = json.loads(await visitor.get(f"{page}/events.json"))["items"]
        assert [event["event_type"].partition(".")[2] for event in events] == [
            "created", "renamed", "archived", "reactivated", "shared", "unshared", "deleted",
        ]  # fmt: skip
        assert {event["actor"] for event in events[1:4]} == {"console"}


async def test_no_text_becomes_markup(here: Served) -> None:
    trip = await here.begin(name=SCRIPT, id=f"x{SCRIPT}", metadata={SCRIPT: SCRIPT})
    await here.say(trip, SCRIPT)
    call = {"id": SCRIPT, "function": {"name": SCRIPT, "arguments": SCRIPT}}
    await here.say(trip, SCRIPT, role="assistant", tool_calls=[call])
    await here.say(trip, SCRIPT, role="tool", tool_call_id="none", name=SCRIPT)
    file = {"kind": "file", "file": {"name": SCRIPT, "mimeType": SCRIPT, "bytes": "aGVsbG8="}}
    parts = [file, {"kind": "data", "data": {SCRIPT: [SCRIPT]}}, {"kind": SCRIPT, "x": SCRIPT}]
    await here.client.post(
        f"/v1/conversations/{trip}/messages", json={"messageId": SCRIPT, "role": "user", "parts": parts}
    )
    await append(
        here, trip, {"event_type": "x.y", "content": {SCRIPT: SCRIPT}, "actor": SCRIPT, "metadata": {SCRIPT: SCRIPT}}
    )
    await here.client.post(f"/v1/conversations/{trip}/members", json={"user": SCRIPT})
    async with Visitor(here.url) as visitor:
        for path in (
            "conversations", "conversations?q=alert", f"conversations?q={SCRIPT}&actor={SCRIPT}", "log",
            f"conversations/{trip}",
            f"conversations/{trip}/events", f"conversations/{trip}/compare?a=1", f"conversations/{trip}?version=5",
            f"conversations/{trip}/messages/5", f"log?text={SCRIPT}", "statistics", "",
        ):  # fmt: skip
            page = await visitor.get(path)
            assert "<script>alert" not in page, path
            assert "<img src=x" not in page, path
        assert "<script>alert" not in await visitor.get(f"conversations/{SCRIPT}", status=404)


@pytest.mark.any_server
def test_markdown_has_no_remote_images_no_scripts_and_no_other_schemes() -> None:
    text = f"{SCRIPT}\n\n![x](https://far.example/x.png)\n\n[a](javascript:alert(1)) [b](data:text/html,x) [c](https://x.example)"
    shown = str(markdown(text))
    assert "<script" not in shown
    assert "<img" not in shown
    assert 'href="javascript' not in shown
    assert 'href="data' not in shown
    assert '<a href="https://x.example" rel="noopener noreferrer nofollow">c</a>' in shown


@pytest.mark.slow
async def test_messages_that_await_an_answer_are_listed_oldest_first(here: Served) -> None:
    trip = await here.begin(name="Trip")
    events = [
        {"event_type": "message.added", "content": {"role": "user", "content": f"question {n}", "awaits_answer": True}}
        for n in range(60)
    ]
    await here.client.post(f"/v1/conversations/{trip}/events", json={"events": events})
    await here.begin(name="Answered")
    async with Visitor(here.url) as visitor:
        first = json.loads(await visitor.get("conversations.json?state=pending"))
        second = json.loads(await visitor.get(f"conversations.json?state=pending&after={first['next']}"))
        found = [hit["snippet"] for hit in first["hits"] + second["hits"]]
        assert found == [f"question {n}" for n in range(60)]
        assert second["next"] is None
        assert json.loads(await visitor.get("conversations.json?state=pending&until=2020-01-01"))["hits"] == []
        assert f"conversations/{trip}?from=2#m2" in await visitor.get("conversations?state=pending")
        await visitor.get("conversations?state=pending&after=damaged", status=400)


async def test_a_conversation_says_who_shared_and_deleted_it(here: Served) -> None:
    trip = await here.begin(name="Trip")
    shared = {"event_type": "conversation.shared", "actor": "ana", "content": {"user": "bruno", "access": "read"}}
    await here.client.post(f"/v1/conversations/{trip}/events", json={"events": [shared]})
    async with Visitor(here.url) as visitor:
        page = await visitor.get(f"conversations/{trip}")
        assert ("shared by ana" in page, "Deleted by" in page) == (True, False)
        await here.client.delete(f"/v1/conversations/{trip}", params={"actor": "carla"})
        assert "Deleted by carla" in await visitor.get(f"conversations/{trip}")


async def test_a_task_leads_to_the_message_that_caused_it_and_to_what_it_led_to(here: Served) -> None:
    trip = await here.begin(name="Trip")
    asked = await here.say(trip, "a train to Lisbon")
    by = {"metadata": {"causation_id": asked["events"][0]["event_id"]}}
    task = {"task_id": "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"}
    await append(
        here,
        trip,
        {"event_type": "task.created", "content": task | {"description": "Buy a ticket"}, **by},
        {"event_type": "task.status_changed", "content": task | {"status": "failed"}, **by},
    )
    path = f"conversations/{trip}/events"
    async with Visitor(here.url) as visitor:
        assert f'href="../{path}/4/causation"' in await visitor.get(f"conversations/{trip}")
        assert f'href="../../../{path}/2/causation"' in await visitor.get(f"conversations/{trip}/messages/2")
        assert f'href="../{path}/2/causation"' in await visitor.get(f"log/{asked['position']}")
        found = json.loads(await visitor.get(f"{path}/4/causation.json"))
        assert ([each["version"] for each in found["causes"]], found["effects"]) == ([2, 3], [])
        found = json.loads(await visitor.get(f"{path}/2/causation.json"))
        assert [(depth, each["version"]) for depth, each in found["effects"]] == [(1, 3), (2, 4)]
        page = await visitor.get(f"{path}/3/causation?across=true")
        assert ("a train to Lisbon" in page, "Buy a ticket" in page, "failed" in page) == (True, True, True)
        await visitor.get(f"{path}/9/causation", status=404)


async def test_of_many_effects_the_nearest_are_shown(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "EFFECTS", 2)
    trip = await here.begin()
    asked = await here.say(trip, "hello")
    event = {"event_type": "noted", "content": {}, "metadata": {"causation_id": asked["events"][0]["event_id"]}}
    await append(here, trip, event, event, event)
    async with Visitor(here.url) as visitor:
        found = json.loads(await visitor.get(f"conversations/{trip}/events/2/causation.json"))
        assert (len(found["effects"]), found["more"]) == (2, 1)
        assert "and 1 further event<" in await visitor.get(f"conversations/{trip}/events/2/causation")
