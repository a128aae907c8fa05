"""Retention on the console: legal holds, rules, runs, receipts, and erasures, which show first what they take."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.callers import People
from support.console import Visitor
from support.retention import recorded
from support.serving import Served

from agent_manager.auth import TokenScope
from agent_manager.retention import Rules

pytestmark = pytest.mark.shared_database


async def lists(visitor: Visitor) -> dict[str, Any]:
    return dict(json.loads(await visitor.get("retention.json")))


async def texts(here: Served, conversation: str) -> list[str]:
    found = await here.client.get(f"/v1/conversations/{conversation}/messages")
    return [message["content"] for message in found.json()["items"]]


async def test_an_erasure_shows_what_it_takes_asks_for_a_reason_and_leaves_its_receipt(here: Served) -> None:
    trip = await here.begin(name="Trip to Lisbon")
    await here.say(trip, "my address")
    async with Visitor(here.url) as visitor:
        assert f'href="../erasures?conversation={trip}"' in await visitor.get(f"conversations/{trip}")
        plan = json.loads(await visitor.get(f"erasures.json?conversation={trip}"))
        assert (plan["events"], plan["rows"]["messages"], plan["is_done"]) == (2, 1, False)
        page = f"erasures?conversation={trip}"
        assert "Erase 2 events permanently?" in await visitor.get(page)
        assert await texts(here, trip) == ["my address"], "it was only shown"
        await visitor.send(page, "erasures", 422, conversation=trip, reason=" ")
        await visitor.send(page, "erasures", 422, reason="no target")
        unsigned = await visitor.client.post("erasures", data={"conversation": trip, "reason": "x", "csrf": "forged"})
        assert (unsigned.status_code, await texts(here, trip)) == (403, ["my address"])
        done = await visitor.send(page, "erasures", conversation=trip, reason="asked to be forgotten")
        assert "Erased:" in done
        assert await texts(here, trip) == [""]
        [receipt] = (await lists(visitor))["receipts"]
        assert (receipt["conversation_id"], receipt["actor"]) == (trip, "console")
        assert receipt["content"]["reason"] == "asked to be forgotten"
        assert f'href="./log/{receipt["position"]}"' in done
        assert "asked to be forgotten" in await visitor.get("operations")
        assert "Nothing is left to erase" in await visitor.get(page)
        shown = await visitor.get(f"conversations/{trip}")
        assert ("Erased by console" in shown, "asked to be forgotten" in shown) == (True, True)


async def test_what_was_erased_is_marked_wherever_it_is_shown(here: Served) -> None:
    trip = await here.begin(name="Trip to Lisbon")
    position = (await here.say(trip, "my address"))["position"]
    task = {"task_id": "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e", "description": "my address", "status": "failed"}
    path = f"/v1/conversations/{trip}"
    await here.client.post(f"{path}/events", json={"events": [{"event_type": "task.created", "content": task}]})
    await here.say(trip, "my address", role="tool", tool_call_id="call")
    fork = (await here.client.post(f"{path}/forks", json={"version": 4})).json()["id"]
    mark = "content erased"
    shown = {
        f"conversations/{trip}": 4,  # its name, two messages, a task
        f"conversations/{trip}?version=4": 4,
        f"conversations/{fork}": 3,
        f"conversations/{trip}/messages/2": 2,  # its name, too
        f"conversations/{trip}/compare?a=1&b=4": 4,
        f"conversations/{trip}/events": 5,
        f"log?before={position + 1}&types=message.added": 1,
        f"log/{position}": 1,
        "conversations": 1,
        "conversations?state=failed": 1,
    }
    async with Visitor(here.url) as visitor:
        for page in shown:
            assert mark not in await visitor.get(page), page
        await here.client.post("/v1/erasures", json={"conversation": trip})
        assert {page: (await visitor.get(page)).count(mark) for page in shown} == shown
        assert "my address" not in "".join([await visitor.get(page) for page in shown])


@pytest.mark.slow
async def test_a_single_event_and_a_user_are_erased(here: Served) -> None:
    trip, other = await here.begin(name="Trip"), await here.begin(name="Other")
    position = (await here.say(trip, "a slip"))["position"]
    await here.say(trip, "stays")
    await here.client.post(
        f"/v1/conversations/{other}/messages", json={"role": "user", "content": "of ana"}, params={"actor": "ana"}
    )
    async with Visitor(here.url) as visitor:
        found = re.search(r'href="\.\./(erasures\?conversation=[^"]+)"', await visitor.get(f"log/{position}"))
        assert found is not None
        page = found[1].replace("&amp;", "&")
        event = page.rpartition("=")[2]
        assert "Erase 1 event permanently?" in await visitor.get(page)
        await visitor.send(page, "erasures", conversation=trip, event=event, reason="a slip")
        assert await texts(here, trip) == ["", "stays"]
        assert 'href="../erasures?user=ana"' in await visitor.get("people/user?id=ana")
        await visitor.send("erasures?user=ana", "erasures", user="ana", reason="asked to be forgotten")
        assert await texts(here, other) == [""]
        await visitor.get(f"erasures?user=ana&conversation={trip}", status=422)
        await visitor.get("erasures?conversation=unknown", status=404)


async def test_a_legal_hold_is_placed_shown_on_what_it_covers_and_released(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.client.post(
        f"/v1/conversations/{trip}/messages", json={"role": "user", "content": "hello"}, params={"actor": "ana"}
    )
    fork = (await here.client.post(f"/v1/conversations/{trip}/forks", json={"version": 2})).json()["id"]
    other = await here.begin(name="Other")
    async with Visitor(here.url) as visitor:
        on_fork = {"on": "conversation", "subject": fork, "reason": "case 4711"}
        page = await visitor.send(f"conversations/{fork}", "retention/holds", **on_fork)
        assert ("On legal hold" in page, "Continues" in page) == (True, True), "it leads back to the fork"
        assert "case 4711" in await visitor.get(f"conversations/{trip}"), "which the fork continues"
        await visitor.send("retention", "retention/holds", on="user", subject="ana", reason="case 4712")
        assert "case 4712" in await visitor.get(f"conversations/{trip}")
        assert "On legal hold" not in await visitor.get(f"conversations/{other}")
        await visitor.send("retention", "retention/holds", on="tenant", reason="case 4713")
        assert "case 4713" in await visitor.get(f"conversations/{other}")
        assert "case 471" in await visitor.get(f"erasures?conversation={trip}", status=409)
        holds = (await lists(visitor))["holds"]
        assert [(each["reason"], each["placed_by"]) for each in holds] == [
            (f"case {number}", "console") for number in (4711, 4712, 4713)
        ]
        assert "case 4711" in await visitor.get("operations")
        for wrong in (
            {"on": "tenant", "subject": "x", "reason": "case"},
            {"on": "user", "reason": "case"},
            {"on": "user", "subject": "ana", "reason": "  "},
        ):
            await visitor.send("retention", "retention/holds", 422, **wrong)
        for hold in holds:
            await visitor.send("retention", "retention/holds/release", hold=hold["id"], reason="closed")
        assert "There are no legal holds" in await visitor.get("retention")
        await visitor.send("retention", "retention/holds/release", 404, hold=holds[0]["id"])
    acts = await recorded(here.store)
    assert [(name, actor) for name, _, actor in acts] == [
        *[("hold_added", "console")] * 3, *[("hold_released", "console")] * 3,
    ]  # fmt: skip


@pytest.mark.slow
async def test_a_rule_is_added_its_run_shown_before_it_is_made_and_removed(here: Served) -> None:
    held, due = await here.begin(name="Held"), await here.begin(name="Due", metadata={"team": "support"})
    await here.say(held, "stays")
    await here.say(due, "goes")
    async with Visitor(here.url) as visitor:
        await visitor.send("retention", "retention/holds", on="conversation", subject=held, reason="case 4711")
        rule = {"days": "0.0000001", "since": "creation", "state": "active", "reason": "policy 7"}
        page = await visitor.send("retention", "retention/rules", **rule)
        assert "policy 7" in page
        plan = json.loads(await visitor.get("retention/run.json"))["run"]["rules"]
        assert [(each["conversations"], each["held"]) for each in plan] == [(1, 1)]
        assert "Erase what 1 conversation holds?" in await visitor.get("retention/run")
        assert await texts(here, due) == ["goes"]
        assert "The rules were applied" in await visitor.send("retention/run", "retention/run")
        assert (await texts(here, due), await texts(here, held)) == ([""], ["stays"])
        found = await lists(visitor)
        assert [run["rules"][0]["held"] for run in found["runs"]] == [1]
        assert found["rules"][0]["applied_at"] is not None
        page = await visitor.get("operations")
        assert ("policy 7" in page, "Latest runs of the rules" in page) == (True, True)
        assert "Nothing is due" in await visitor.get("retention/run")
        await visitor.send("retention", "retention/rules/remove", rule=found["rules"][0]["id"])
        more = {"days": "365", "user": "ana", "metadata": '{"team": "support"}'}
        assert "support" in await visitor.send("retention", "retention/rules", **more)
        for wrong in ({"days": "0"}, {"days": "1", "state": "gone"}, {"days": "1", "metadata": "[]"}):
            await visitor.send("retention", "retention/rules", 422, **wrong)
    [kept] = await Rules(here.store).list()
    assert (kept.age.days, kept.user, kept.metadata, kept.since) == (365, "ana", {"team": "support"}, "last_event")


@pytest.mark.slow
async def test_each_page_and_change_needs_its_scope(protected: Served, people: People) -> None:
    eraser = await people.person("acme", None, TokenScope.ERASE, TokenScope.READ, TokenScope.WRITE)
    admin = await people.person("acme", None, TokenScope.ADMIN, TokenScope.READ, TokenScope.AUDIT)
    user = await people.person("acme", "ana", TokenScope.ERASE, TokenScope.READ, TokenScope.WRITE)
    trip = (await eraser.post("/v1/conversations", {"name": "Trip"})).json()["id"]
    own = (await user.post("/v1/conversations", {"name": "Of ana"})).json()["id"]
    async with Visitor(protected.url, eraser.token) as visitor:
        page = await visitor.get(f"conversations/{trip}")
        assert ('href="../erasures"' in page, 'href="../retention"' in page) == (True, False)
        assert f'href="../erasures?conversation={trip}"' in page
        await visitor.get("retention", status=403)
        page = f"erasures?conversation={trip}"
        await visitor.send(page, "retention/holds", 403, on="tenant", reason="x")
        await visitor.get("retention/run")
        await visitor.send(page, "erasures", conversation=trip, reason="asked")
    async with Visitor(protected.url, admin.token) as visitor:
        page = await visitor.get("retention")
        assert "asked" in page
        assert "/erasures" not in page + await visitor.get(f"conversations/{trip}")
        await visitor.get(f"erasures?conversation={trip}", status=403)
        await visitor.send("retention", "erasures", 403, conversation=trip, reason="x")
        await visitor.get("retention/run", status=403)
        await visitor.send("retention", "retention/run", 403)
    async with Visitor(protected.url, user.token) as visitor:
        await visitor.get(f"erasures?conversation={trip}", status=404)
        await visitor.get("erasures?user=bob", status=403)
        await visitor.get("retention/run", status=403)
        await visitor.send(f"erasures?conversation={own}", "erasures", conversation=own, reason="asked")
    stranger = await people.person("globex", None, *TokenScope)
    async with Visitor(protected.url, stranger.token) as visitor:
        assert (await lists(visitor))["receipts"] == []
        await visitor.get(f"erasures?conversation={trip}", status=404)
