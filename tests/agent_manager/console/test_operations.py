"""The pages of operators: the log, projections and their rebuilds, people, statistics, and who may see which."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from support import sealing
from support.callers import People
from support.console import Visitor
from support.eventsource import EventSource
from support.scoped_queries import open_as
from support.sealing import seal, sealing_settings
from support.serving import Served, served
from support.waiting import SECONDS, until_async

from agent_manager.audit.notes import KeyFile
from agent_manager.auth import TokenScope
from agent_manager.console import operations
from agent_manager.doctor import Report, examine
from agent_manager.server import lag_history, read_your_writes
from agent_manager.settings import ServerSettings
from eventstore import EventStore
from projections import rebuild, select_projections

pytestmark = pytest.mark.shared_database


async def acts(visitor: Visitor) -> list[tuple[str, Any]]:
    """The administrative acts of the visitor's tenant: name and details."""
    found = json.loads(await visitor.get("log.json"))["items"]
    prefix = "eventstore."
    events = [event for event in found[::-1] if event["event_type"].startswith(prefix)]
    return [(event["event_type"].removeprefix(prefix), event["content"]) for event in events]


async def acts_on_the_system(visitor: Visitor) -> list[tuple[str, str, str]]:
    """The administrative acts that operators see: tenant, name, and the projection that they concern."""
    found = json.loads(await visitor.get("operations.json"))["acts"][::-1]
    return [(each["tenant"], each["act"], each["details"].get("projection", "")) for each in found]


async def test_the_log_is_filtered_by_types_actor_text_and_position(here: Served) -> None:
    trip = await here.begin(name="Trip")
    said = [await here.say(trip, text) for text in ("to Lisbon", "to Porto")]
    await here.client.patch(f"/v1/conversations/{trip}", json={"name": "Journey", "actor": "ana"})
    async with Visitor(here.url) as visitor:

        async def types(query: str) -> list[str]:
            return [each["event_type"] for each in json.loads(await visitor.get(f"log.json?{query}"))["items"]]

        everything = await types("")
        assert everything == ["conversation.renamed", "message.added", "message.added", "conversation.created"]
        assert await types("types=message.added,conversation.created") == everything[1:]
        assert await types("types=-message.added") == ["conversation.renamed", "conversation.created"]
        assert await types("actor=ana") == everything[:1]
        assert await types("text=PORTO") == ["message.added"]
        assert await types(f"before={said[0]['position']}") == everything[3:]
        assert await types("until=2020-01-01") == []
        assert await types("since=2020-01-01&text=&actor=&before=") == everything
        page = await visitor.get("log?text=porto")
        assert 'sse-connect="log/live?text=porto&after=' in page
        position = said[1]["position"]
        whole = await visitor.get(f"log/{position}")
        assert "to Porto" in whole
        part = await visitor.get(f"log/{position}", hx_target=f"body-{position}")
        for given, root in (("./", "./"), ("../../", "../../"), ("//evil.example/", "../"), ("../x", "../")):
            nested = await visitor.get(f"log/{position}", hx_target=f"body-{position}", Console_Root=given)
            assert f'href="{root}log/{position}"' in nested, "the page that shows it may be at another depth"
        assert ("to Porto" in part, "<html" in part) == (True, False)
        await visitor.get("log/1000000000", status=404)
        await visitor.get("log?before=x", status=422)


@pytest.mark.slow
async def test_the_live_log_sends_every_event_of_a_burst_and_goes_on_where_it_was_cut(here: Served) -> None:
    trip = await here.begin(name="Trip")
    end = (await here.say(trip, "before"))["position"]
    path = f"/console/log/live?after={end}&types=message.added&text=number"
    events = [
        {"event_type": "message.added", "content": {"role": "user", "content": f"number {n}"}} for n in range(300)
    ]
    async with EventSourceOfRows(here.address, path) as stream:
        for begin in range(0, 300, 100):
            await here.client.post(f"/v1/conversations/{trip}/events", json={"events": events[begin : begin + 100]})
        rows = [await stream.row() for _ in range(200)]
        stream.source.cut()
        await stream.source.open()
        rows += [await stream.row() for _ in range(100)]
    assert len(set(rows)) == 300


class EventSourceOfRows:
    """A client of the live log: the positions of the rows that come."""

    def __init__(self, address: tuple[str, int], path: str) -> None:
        self.source = EventSource(address, path, decode=str)

    async def __aenter__(self) -> EventSourceOfRows:
        await self.source.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.source.cut()

    async def row(self) -> str:
        """The position in the next row."""
        event = await self.source.next()
        assert event.name == "row"
        found = re.search(r'id="e(\d+)"', event.data)
        assert found is not None
        return found[1]


@pytest.mark.own_database
@pytest.mark.slow
async def test_a_rebuild_is_started_paused_continued_and_undone_and_each_is_audited(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "to Lisbon")
    async with Visitor(here.url) as visitor:
        page = await visitor.get("projections")
        assert "popovertarget" in page
        assert "eventstore worker" in page

        async def state(name: str) -> str:
            found = json.loads(await visitor.get("projections.json"))["projections"]
            return str(next(each["rebuild"]["state"] for each in found if each["name"] == name))

        async def is_done(wanted: str) -> bool:
            return await state("messages") == wanted

        await visitor.send("projections", "projections/messages/rebuild")
        await until_async(lambda: is_done("done"), "rebuilt")
        await visitor.send("projections", "projections/messages/rebuild/undo")
        await until_async(lambda: is_done("restored"), "restored")
        here.server_context.rebuilds.start("tasks")
        await visitor.send("projections", "projections/tasks/rebuild/pause")
        assert await state("tasks") == "paused"
        await visitor.send("projections", "projections/tasks/rebuild")
        await visitor.send("projections", "projections/retry")

        async def is_rebuilt() -> bool:
            return await state("tasks") == "done"

        await until_async(is_rebuilt, "rebuilt")
        done = [(act, what) for tenant, act, what in await acts_on_the_system(visitor) if tenant == "eventstore:system"]
        assert [act for act, what in done if what == "messages"] == [
            "rebuild_started", "rebuild_finished", "rebuild_undone",
        ]  # fmt: skip
        tasks = [act for act, what in done if what == "tasks"]
        assert {"rebuild_started", "rebuild_paused"} <= set(tasks)
        assert tasks[-1] == "rebuild_finished"
        assert "to Lisbon" in await visitor.get(f"conversations/{trip}")


@pytest.mark.own_database
async def test_what_was_not_done_is_not_recorded(here: Served) -> None:
    async with Visitor(here.url) as visitor:
        await visitor.send("projections", "projections/messages/rebuild/pause", status=409)
        await visitor.send("projections", "projections/nothing/rebuild", status=404)
        assert await acts_on_the_system(visitor) == []


@pytest.mark.own_database
@pytest.mark.slow
async def test_a_rebuild_of_another_process_can_be_undone(here: Served) -> None:
    await here.say(await here.begin(name="Trip"), "to Lisbon")
    async with Visitor(here.url) as visitor:
        assert "projections/messages/rebuild/undo" not in await visitor.get("projections")
        await rebuild(here.store, select_projections(["messages"]))

        async def is_offered() -> bool:
            return "projections/messages/rebuild/undo" in await visitor.get("projections")

        await until_async(is_offered, "offered")


@pytest.mark.own_database
async def test_a_projection_is_paused_and_resumed_and_the_overview_says_so(here: Served) -> None:
    trip = await here.begin(name="Trip")
    async with Visitor(here.url) as visitor:
        page = await visitor.send("projections", "projections/messages/pause")
        assert 'class="chip paused"' in page
        await here.say(trip, "meanwhile")
        assert "A projection is paused" in await visitor.get("")
        behind = await visitor.get(f"conversations/{trip}")
        assert ("The read tables are behind the log" in behind, "meanwhile" in behind) == (True, False)
        await visitor.send("projections", "projections/messages/resume")
        assert "meanwhile" in await visitor.get(f"conversations/{trip}")
        assert await acts_on_the_system(visitor) == [
            ("eventstore:system", "projection_paused", "messages"),
            ("eventstore:system", "projection_resumed", "messages"),
        ]


async def test_lags_and_batch_times_are_sampled_before_anybody_looks(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_history, "SAMPLE_SECONDS", 0.05)
    async with served(store) as here, Visitor(here.url) as visitor:
        await here.say(await here.begin(name="Trip"), "to Lisbon")

        async def has_trend() -> bool:
            found = json.loads(await visitor.get("projections.json"))["projections"]
            messages = next(each for each in found if each["name"] == "messages")
            return len(messages["trend"]) >= 3 and bool(messages["state"]["batch_events"])

        await until_async(has_trend, "sampled")
        assert "Batch times, last hour" in await visitor.get("projections")


async def test_reports_of_browsers_are_counted(here: Served) -> None:
    async with Visitor(here.url) as visitor:
        page = await visitor.client.get("conversations")
        assert page.headers["content-security-policy"].endswith("; report-uri ./csp-report")

        async def counted() -> str:
            metrics = (await here.client.get("/metrics")).text
            return metrics.partition("\neventstore_console_csp_reports_total ")[2].partition("\n")[0]

        assert await counted() == "0.0"
        report = {"csp-report": {"violated-directive": "script-src", "blocked-uri": "inline"}}
        sent = await visitor.client.post(
            "csp-report", content=json.dumps(report), headers={"Content-Type": "application/csp-report"}
        )
        assert (sent.status_code, await counted()) == (204, "1.0")


@pytest.mark.own_database
@pytest.mark.slow
async def test_what_is_parked_is_shown_with_its_error_and_retried(here: Served, database_url: str) -> None:
    trip = await here.begin(name="Trip")
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute("ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (content <> 'poison')")
        await here.say(trip, "poison")
    async with Visitor(here.url) as visitor:

        async def is_parked() -> bool:
            return "Conversations are parked" in await visitor.get("")

        await until_async(is_parked, "parked")
        page = await visitor.get("projections")
        assert "no_poison" in page
        assert f'href="conversations/{trip}"' in page
        with open_as(database_url, "eventstore_owner") as owner:
            owner.execute("ALTER TABLE messages DROP CONSTRAINT no_poison")
        assert "Nothing is parked" in await visitor.send("projections", "projections/retry")
        assert "poison" in await visitor.get(f"conversations/{trip}")
        details = {"projection": "messages", "conversation": trip, "applied": True}
        assert ("parked_retried", details) in await acts(visitor)


@pytest.mark.slow
async def test_keys_are_made_once_and_revoked_and_have_no_scope_that_their_maker_lacks(
    protected: Served, people: People
) -> None:
    admin = await people.person("acme", "root", TokenScope.READ, TokenScope.ADMIN, TokenScope.AUDIT)
    async with Visitor(protected.url, admin.token) as visitor:
        assert "<h2>Tenants</h2>" not in await visitor.get("people"), "only the server's own tenant sees the others"
        await visitor.send("people", "people/users", user="bob")
        page = await visitor.send(
            "people", "people/keys", 201, name="laptop", user="bob", days="1", **{"scopes[]": "read"}
        )
        token = page.partition('id="token">')[2].partition("<")[0]
        assert token not in await visitor.get("people")
        async with Visitor(protected.url, token) as bob:
            await bob.get("conversations")
            await bob.get("people", status=403)
        more = await visitor.send("people", "people/keys", 403, name="more", **{"scopes[]": "erase"})
        assert "leave out erase" in more
        for path in ("people/tenants", "people/tenants/state"):
            await visitor.send(
                "people", path, 403, tenant="other", **({"suspended": "true"} if "state" in path else {})
            )
        await visitor.send("people", "people/keys/revoke", key=token[3:15])

        async def is_refused() -> bool:
            async with Visitor(protected.url) as bob:
                form = {"token": token, "next": "conversations"}
                return (await bob.client.post("sign-in", data=form)).status_code == 401

        await until_async(is_refused, "revoked")
        await visitor.send("people", "people/users/state", user="bob", disabled="true")
        done = [name for name, _ in await acts(visitor)]
        assert done[-4:] == ["user_added", "key_added", "key_revoked", "user_disabled"]
        assert token not in await visitor.get("log.json")


@pytest.mark.slow
async def test_a_user_is_shown_with_their_keys_and_the_conversations_that_they_may_see(
    protected: Served, people: People
) -> None:
    admin = await people.person("acme", "root", *TokenScope)
    ana = await people.person("acme", "ana/b")
    own = (await ana.post("/v1/conversations", {"name": "Of ana"})).json()["id"]
    await admin.post("/v1/conversations", {"name": "Of root"})
    async with Visitor(protected.url, admin.token) as visitor:
        assert 'href="./people/user?id=ana/b"' in await visitor.get("people")
        assert "Revoke" in await visitor.get("people/user?id=ana%2Fb")
        part = await visitor.get("people/user?id=ana%2Fb", hx_target="results")  # waits as long as it takes
        assert f'href="../conversations/{own}"' in part
        assert "Of root" not in part
        assert "There are no conversations here yet" in await visitor.get("people/user?id=nobody", hx_target="results")
    async with Visitor(protected.url, ana.token) as visitor:
        await visitor.get("people/user?id=ana%2Fb", status=403)


@pytest.mark.slow
async def test_what_concerns_all_tenants_is_shown_to_administrators_of_the_servers_own_only(
    protected: Served, people: People
) -> None:
    admin = await people.person("acme", "root", *TokenScope)
    async with Visitor(protected.url, admin.token) as visitor:
        frame = await visitor.get("")
        for path in ("projections", "operations", "operations/doctor", "projections.json"):
            await visitor.get(path, status=403)
            assert f'href="./{path}"' not in frame
        assert "Events per second" not in frame


@pytest.mark.slow
async def test_statistics_are_shown_and_exported_as_csv_without_formulas(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "to Lisbon")
    call = {"id": "c1", "function": {"name": "book_train", "arguments": "{}"}}
    message = {"role": "assistant", "content": "booked", "tool_calls": [call]}
    await here.client.post(f"/v1/conversations/{trip}/messages", json=message, params={"actor": "=cmd()"})
    async with Visitor(here.url) as visitor:
        page = await visitor.get("statistics", hx_target="results")  # which waits as long as it takes
        assert "book_train" in page
        found = await visitor.get("statistics.csv?table=actors")
        rows = list(csv.DictReader(io.StringIO(found)))
        assert {row["actor"] for row in rows} == {"", "'=cmd()"}
        assert await visitor.get("statistics.csv?table=tools") == "name,calls\r\nbook_train,1\r\n"
        assert await visitor.get("statistics.csv?table=tools&actor=nobody") == ""
        await visitor.get("statistics.csv?table=secrets", status=422)
        assert "Nothing in this period" in await visitor.get("statistics?until=2000-01-01", hx_target="results")


@pytest.mark.slow
async def test_the_overview_names_what_needs_attention(here: Served) -> None:
    trip = await here.begin(name="Trip")
    waiting = {"event_type": "message.added", "content": {"role": "user", "content": "x", "awaits_answer": True}}
    await here.client.post(f"/v1/conversations/{trip}/events", json={"events": [waiting]})
    async with Visitor(here.url) as visitor:
        page = await visitor.get("")
        assert "No backups are scheduled" in page
        assert "Messages await an answer" in page
        assert 'href="./conversations?state=pending"' in page
        assert "Trip" in page
        assert "EVENTSTORE_BACKUP_DIR" in await visitor.get("operations")


@pytest.mark.own_database
async def test_operations_say_how_far_the_log_is_sealed_and_by_which_key(
    settings: ServerSettings, tmp_path: Path
) -> None:
    async with (
        EventStore(sealing_settings(settings, tmp_path, audit_seconds=3600.0)) as store,
        served(store) as here,
        Visitor(here.url) as visitor,
    ):
        assert "Nothing is sealed" in await visitor.get("operations")
        position = await sealing.append(store, 2)
        await seal(store)
        await sealing.append(store, 1)
        [key] = KeyFile.read(tmp_path / "audit.key").keys
        sealed = json.loads(await visitor.get("operations.json"))["sealed"]
        assert (sealed["events"], sealed["position"], sealed["lag_events"]) == (2, position, 1)
        assert (sealed["origin"], sealed["key_ids"]) == (sealing.NAME, [key.id])
        assert f"<code>{key.id}</code>" in await visitor.get("operations")


@pytest.mark.slow
async def test_the_findings_of_doctor_are_shown(here: Served) -> None:
    async with Visitor(here.url) as visitor:
        async with asyncio.timeout(120):
            page = await visitor.get("operations/doctor")
        assert "no backups are made" in page
        assert "checks passed" in page


@pytest.mark.slow
async def test_requests_for_the_findings_share_one_examination(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[object] = []
    have_arrived = threading.Event()

    def examine_once_all_have_arrived(*arguments: Any) -> Report:
        began.append(arguments)
        assert have_arrived.wait(SECONDS)
        return examine(*arguments)

    async def have_all_arrived() -> bool:
        return here.server_context.limits.requests.taken == 8

    monkeypatch.setattr(operations, "examine", examine_once_all_have_arrived)
    async with Visitor(here.url) as visitor, asyncio.timeout(120):
        pages = [asyncio.create_task(visitor.get("operations/doctor")) for _ in range(8)]
        await until_async(have_all_arrived, "all requests have arrived")
        have_arrived.set()
        assert all("checks passed" in page for page in await asyncio.gather(*pages))
        assert len(began) == 1
        await visitor.get("operations/doctor")
        assert len(began) == 2, "a later request gets the present state"


@pytest.mark.own_database
@pytest.mark.slow
async def test_pages_are_shown_while_no_worker_runs_and_say_so(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_your_writes, "MAX_LAG", 0)  # or reads would apply the events themselves
    async with served(store, works=False) as here, Visitor(here.url) as visitor:
        trip = uuid4()
        body = {"begin": {"name": "Trip"}, "events": [{"event_type": "x.y", "content": 1}]}
        assert (await here.client.post(f"/v1/conversations/{trip}/events", json=body)).status_code == 201
        page = await visitor.get("")
        assert "The read tables are behind the log" in page
        assert "No worker runs" in page
        for path in ("conversations", "conversations?q=x", "statistics", "projections", "log"):
            await visitor.get(path)
        await visitor.get(f"conversations/{trip}", status=404)
