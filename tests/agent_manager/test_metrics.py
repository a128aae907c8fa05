"""Every metric has the true value: what was done, and what the database holds, is what a scrape shows."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.callers import People
from support.metrics_table import documented_metrics
from support.raw import append_raw
from support.scoped_queries import open_as
from support.scrapes import Scrape, scrape
from support.sealing import create_keys, seal, sealing_settings
from support.serving import Served, served
from support.waiting import until_async

from agent_manager import metrics as module
from agent_manager.auth import TokenScope
from agent_manager.backup import Archive, create_backup, open_target
from agent_manager.backup.erasures import write_erasures
from agent_manager.metrics import Metrics
from agent_manager.retention import Holds, Rules, apply_rules
from agent_manager.settings import ServerSettings
from eventstore import NO_STREAM, ConversationCreated, EventStore, MessageAdded, Metadata, NewEvent, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import (
    ConversationIsDeleted,
    EventIdConflict,
    InputError,
    WrongExpectedVersion,
)
from eventstore.event_types import ConversationDeleted
from projections import PROJECTIONS, RebuildProgress, Search, catch_up, rebuild, select_projections
from projections.projection import Projection
from projections.status import EXACT_LAG
from tools.checker.proxy import Proxy

AGES_AGO = datetime.now(UTC) - timedelta(days=400)
NAMES = [projection.name for projection in PROJECTIONS]


def message(text: str = "hello") -> MessageAdded:
    return MessageAdded(role="user", content=text)


@pytest.fixture
def read(store: EventStore) -> Metrics:
    """The metrics of the store, without a server."""
    return Metrics(store)


async def test_appends_conflicts_and_batches_are_counted_exactly(store: EventStore, read: Metrics) -> None:
    trip, began = uuid4(), monotonic()
    for number in range(7):
        await store.append(trip, [message()] * (number + 1))
    repeated = [NewEvent(message())]
    for _ in range(2):
        await store.append(trip, repeated)
    await store.append("by name", [message()], begin=ConversationCreated())  # two statements, but one append
    for _ in range(3):
        with pytest.raises(WrongExpectedVersion):
            await store.append(trip, [message()], expected=NO_STREAM)
    with pytest.raises(EventIdConflict):
        await store.append(trip, [NewEvent(message("another"), repeated[0].id)])
    await store.append(trip, [ConversationDeleted()])
    with pytest.raises(ConversationIsDeleted):
        await store.append(trip, [message()])
    with pytest.raises(InputError):
        await store.append(trip, [])
    seconds = monotonic() - began
    seen = await scrape(read)
    assert seen.sum("eventstore_append_seconds_count") == 7 + 2 + 1 + 1
    assert seen.sum("eventstore_append_seconds_bucket", le="+Inf") == 11
    assert 0 < seen.sum("eventstore_append_seconds_sum") < seconds
    assert seen.sum("eventstore_appended_events_total") == 28 + 1 + 2 + 1
    assert seen.by("error", "eventstore_append_conflicts_total") == {
        "WrongExpectedVersion": 3, "EventIdConflict": 1, "ConversationIsDeleted": 1,
    }  # fmt: skip
    assert seen.by("error", "eventstore_append_failures_total") == {"InputError": 1}
    assert seen.sum("eventstore_append_batch_events_count") == 7 + 2 + 2 + 3 + 1 + 1 + 1
    assert seen.sum("eventstore_append_batch_events_sum") == 28 + 2 + 3 + 3 + 1 + 1 + 1
    assert seen.sum("eventstore_append_batch_events_bucket", le="5.0") == 15
    assert seen.sum("eventstore_log_last_position") == seen.sum("eventstore_log_horizon_position") >= 32
    assert seen.sum("eventstore_append_pending_events") == 0
    await asyncio.gather(*(store.append(uuid4(), [message()]) for _ in range(50)))
    together = await scrape(read)
    assert together.sum("eventstore_append_batch_events_sum") - seen.sum("eventstore_append_batch_events_sum") == 50
    assert together.sum("eventstore_append_batch_events_count") - seen.sum("eventstore_append_batch_events_count") < 10


async def test_the_lag_counts_what_each_projection_has_not_applied(store: EventStore, read: Metrics) -> None:
    trips = [uuid4() for _ in range(40)]
    for trip in trips[:20]:
        await store.append(trip, [message()])
    never = await scrape(read)
    assert never.by("projection", "eventstore_projection_lag_events") == dict.fromkeys(NAMES, 20)
    await catch_up(store)
    done = await scrape(read)
    assert done.by("projection", "eventstore_projection_lag_events") == dict.fromkeys(NAMES, 0)
    assert done.by("projection", "eventstore_projection_lag_seconds") == dict.fromkeys(NAMES, 0)
    began = monotonic()
    for trip in trips:
        await store.append(trip, [message(), message()])
    appended = monotonic()
    others: list[Projection] = [each for each in PROJECTIONS if each.name != "messages"]
    await catch_up(store, others)
    before = monotonic()
    stalled = await scrape(read)
    assert stalled.by("projection", "eventstore_projection_lag_events") == dict.fromkeys(NAMES, 0) | {"messages": 80}
    seconds = stalled.by("projection", "eventstore_projection_lag_seconds")
    assert {name for name, lag in seconds.items() if lag} == {"messages"}
    assert before - appended <= seconds["messages"] <= monotonic() - began


async def test_a_partition_that_stands_still_counts_only_its_own_events(
    store: EventStore, read: Metrics, database_url: str
) -> None:
    trips = [uuid4() for _ in range(40)]
    with open_as(database_url) as projector:
        rows = projector.execute("SELECT partition_of(t) FROM unnest(%s::uuid[]) AS t", [trips]).fetchall()
        partitions = [partition for (partition,) in rows]
        for trip in trips:
            await store.append(trip, [message()])
        await catch_up(store)
        projector.execute(
            "UPDATE checkpoints SET position = 0 WHERE projection = 'tasks' AND partition = %s", partitions[:1]
        )
    lags = (await scrape(read)).by("projection", "eventstore_projection_lag_events")
    assert lags == dict.fromkeys(NAMES, 0) | {"tasks": partitions.count(partitions[0])}


@pytest.mark.slow
async def test_a_long_lag_is_counted_by_positions(store: EventStore, read: Metrics) -> None:
    for _ in range(2):
        await store.append(uuid4(), [message()] * EXACT_LAG)
    seen = await scrape(read)
    assert set(seen.by("projection", "eventstore_projection_lag_events").values()) == {2 * EXACT_LAG}
    assert min(seen.by("projection", "eventstore_projection_lag_seconds").values()) > 0


async def test_an_append_in_flight_holds_the_horizon_back(store: EventStore, read: Metrics, database_url: str) -> None:
    await store.append(uuid4(), [message()])
    with psycopg.connect(database_url) as stranger:
        append_raw(stranger, 1)
        for _ in range(4):
            await store.append(uuid4(), [message()])
        held = await scrape(read)
        assert held.sum("eventstore_log_horizon_distance") == 5
        assert held.sum("eventstore_log_horizon_position") == held.sum("eventstore_log_last_position") - 5
    assert (await scrape(read)).sum("eventstore_log_horizon_distance") == 0


async def test_parked_conversations_are_counted_by_projection(
    store: EventStore, read: Metrics, database_url: str
) -> None:
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute("ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (content <> 'poison')")
    for _ in range(3):
        await store.append(uuid4(), [message("poison"), message()])
    await catch_up(store)
    parked = (await scrape(read)).by("projection", "eventstore_projection_parked_conversations")
    assert parked == dict.fromkeys(NAMES, 0) | {"messages": 3}


@pytest.mark.slow
async def test_an_exhausted_pool_shows_who_holds_and_who_waits(settings: Settings) -> None:
    async with EventStore(settings.model_copy(update={"pool_size": 3, "connect_timeout": 1})) as store:
        read, pool = Metrics(store), store.connections.reader
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(pool.connection())
            waiting = [asyncio.create_task(pool.fetch("SELECT 1")) for _ in range(2)]

            async def are_waiting() -> bool:
                return pool.queue.waiting == 2

            await until_async(are_waiting, "both wait")
            full = await scrape(read)
            assert full.sum("eventstore_pool_size", pool="reader") == 3
            assert full.sum("eventstore_pool_in_use", pool="reader") == 3
            assert full.sum("eventstore_pool_in_use", pool="auditor") == 0
            assert {isinstance(each, Exception) for each in await asyncio.gather(*waiting, return_exceptions=True)} == {
                True
            }
        free = await scrape(read)
        assert free.sum("eventstore_pool_in_use", pool="reader") == 0
        assert free.sum("eventstore_pool_waiting", pool="reader") == 0
        assert free.sum("eventstore_pool_timeouts_total", pool="reader") >= 2


async def test_searches_notifications_and_workers_are_counted(store: EventStore, read: Metrics) -> None:
    await store.append(uuid4(), [message("a train to Lisbon")])
    await catch_up(store)
    for _ in range(3):
        await Search(store).page("train")
    with pytest.raises(InputError):
        await Search(store).page("train", limit=0)
    seen = await scrape(read)
    assert seen.sum("eventstore_search_seconds_count") == 3
    assert seen.sum("eventstore_search_seconds_sum") > 0
    assert seen.sum("eventstore_workers") == seen.sum("eventstore_notifications_total") == 0
    assert seen.sum("eventstore_notification_queue_usage_ratio") < 0.5
    async with served(store) as here:

        async def works() -> bool:
            return (await scrape(here.server_context.metrics)).sum("eventstore_workers") == 1

        await until_async(works, "a worker runs")
        other = EventStore(store.settings)
        async with other:
            numbers = 0
            while numbers < 3:  # an append notifies only while somebody waits
                await other.append(uuid4(), [message()])
                numbers = int((await scrape(here.server_context.metrics)).sum("eventstore_notifications_total"))
            assert (await scrape(Metrics(other))).sum("eventstore_notifications_total") == 0


async def test_an_unfinished_rebuild_shows_how_far_it_is(store: EventStore, read: Metrics) -> None:
    for _ in range(5):
        await store.append(uuid4(), [message()])
    await catch_up(store)
    assert (await scrape(read)).by("projection", "eventstore_projection_rebuild_ratio") == {}
    is_filled = asyncio.Event()

    def report(progress: RebuildProgress) -> None:
        if progress.doing == "indexes":
            is_filled.set()

    rebuilding = asyncio.create_task(rebuild(store, select_projections(["messages"]), on_progress=report))
    await is_filled.wait()
    await cancel_and_wait([rebuilding])
    filled = await scrape(read)
    assert filled.by("projection", "eventstore_projection_rebuild_ratio") == {"messages": 1}
    for _ in range(5):
        await store.append(uuid4(), [message()])
    grown = await scrape(read)
    part = filled.sum("eventstore_log_horizon_position") / grown.sum("eventstore_log_horizon_position")
    assert grown.by("projection", "eventstore_projection_rebuild_ratio") == {"messages": part}
    await catch_up(store)
    await rebuild(store, select_projections(["messages"]))
    assert (await scrape(read)).by("projection", "eventstore_projection_rebuild_ratio") == {}


async def test_the_time_of_the_newest_intact_backup_is_shown(settings: ServerSettings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"backup_dir": str(tmp_path), "backup_minutes": 90.0})
    async with EventStore(settings) as store:
        read, archive = Metrics(store), Archive(open_target(str(tmp_path)))
        none = await scrape(read)
        assert none.sum("eventstore_backup_last_success_timestamp_seconds") == 0
        assert none.sum("eventstore_backup_interval_seconds") == 90 * 60
        await store.append(uuid4(), [message()])
        first, second = [await create_backup(store, archive) for _ in range(2)]
        newest = "eventstore_backup_last_success_timestamp_seconds"
        assert (await scrape(read)).sum(newest) == second.created_at.timestamp()
        (tmp_path / "manifests" / f"{second.id}.json").write_text("{}", encoding="utf-8")
        assert (await scrape(read)).sum(newest) == first.created_at.timestamp()
        (tmp_path / "manifests").rename(tmp_path / "gone")
        (tmp_path / "manifests").write_text("no folder", encoding="utf-8")
        assert (await scrape(read)).sum(newest) == first.created_at.timestamp(), "the last known, which grows old"


async def test_metrics_show_what_is_erased_by_rule_and_what_is_held(settings: ServerSettings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"backup_dir": str(tmp_path)})
    async with EventStore(settings) as store:
        read, held, old = Metrics(store), uuid4(), NewEvent(message(), metadata=Metadata(occurred_at=AGES_AGO))
        for trip in (held, uuid4()):
            await store.append(trip, [old])
        await catch_up(store)
        rule = await Rules(store).add(timedelta(days=30))
        await Holds(store).place(conversation_id=held, reason="case 4711")
        before = await scrape(read)
        assert (before.sum("eventstore_retention_rules"), before.sum("eventstore_legal_holds")) == (1, 1)
        assert before.sum("eventstore_retention_applied_timestamp_seconds") == rule.added_at.timestamp()
        await apply_rules(store)
        [rule] = await Rules(store).list()
        counts = {"events": 1, "conversations": 1, "held": 1, "skipped": 0, "failed": 0}
        assert (rule.outcome, rule.applied_at is not None) == (counts, True)
        after = await scrape(read)
        assert after.sum("eventstore_retention_applied_timestamp_seconds") == rule.applied_at.timestamp()  # type: ignore[union-attr]
        outcomes = {"erased": 1, "held": 1, "skipped": 0, "failed": 0}
        assert after.by("outcome", "eventstore_retention_conversations") == outcomes


async def test_erasures_that_a_restored_log_lacks_are_counted(settings: ServerSettings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"backup_dir": str(tmp_path)})
    async with EventStore(settings) as store:
        read, archive, trip = Metrics(store), Archive(open_target(str(tmp_path))), uuid4()
        await store.append(trip, [message(), message()])
        await store.erase(trip, [(await store.append(trip, [message()])).events[0].event_id])
        await write_erasures(store, archive)
        assert (await scrape(read)).sum("eventstore_erasures_not_applied") == 0
        [record] = archive.erasures()
        of_another_log = record.model_copy(update={"id": uuid4(), "conversation_id": uuid4()})
        lost = [record.model_copy(update={"id": uuid4(), "versions": ((number, number),)}) for number in (1, 2)]
        archive.write_erasures([of_another_log, *lost])
        assert (await scrape(read)).sum("eventstore_erasures_not_applied") == 2
        for version in (1, 2):
            await store.erase(trip, [(await anext(store.read(trip, after=version - 1))).id])
        assert (await scrape(read)).sum("eventstore_erasures_not_applied") == 0


async def test_metrics_show_how_far_the_log_is_sealed(settings: ServerSettings, tmp_path: Path) -> None:
    async with EventStore(sealing_settings(settings, tmp_path)) as store:
        read = Metrics(store)
        await store.append(uuid4(), [message(), message()])
        before = await scrape(read)
        assert before.sum("eventstore_audit_sealed_events") == 0
        assert before.sum("eventstore_audit_lag_events") == 2
        await seal(store)
        await store.append(uuid4(), [message()])
        after = await scrape(read)
        assert after.sum("eventstore_audit_sealed_events") == after.sum("eventstore_audit_sealed_position") == 2
        assert after.sum("eventstore_audit_lag_events") == 1
        assert after.sum("eventstore_audit_lag_seconds") > 0
        assert after.sum("eventstore_audit_checkpoint_timestamp_seconds") > 1.7e9


async def test_a_backup_target_that_hangs_does_not_delay_the_metrics(
    settings: ServerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.2)
    (tmp_path / "manifests").mkdir()
    hanging = tmp_path / "manifests" / "20990101T000000000000Z.json"
    os.mkfifo(hanging)  # opening it waits for a writer
    read = Metrics(EventStore(settings.model_copy(update={"backup_dir": str(tmp_path)})))
    threads = threading.active_count()
    for _ in range(3):
        assert (await scrape(read)).sum("eventstore_backup_interval_seconds") > 0
    assert threading.active_count() <= threads + 1
    hanging.open("w").close()


async def test_without_a_database_the_other_metrics_remain(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.5)
    to = conninfo_to_dict(database_url)
    proxy = Proxy(str(to["host"]), int(to.get("port") or 5432))
    await proxy.open()
    url = f"postgresql://{to['user']}@/{to['dbname']}?host={proxy.host}&port={proxy.port}"
    store = EventStore(ServerSettings(database_url=url))
    read = Metrics(store)
    assert (await scrape(read)).sum("eventstore_database_up") == 0, "not open yet"
    async with store:
        await store.append(uuid4(), [message()])
        up = await scrape(read)
        assert (up.sum("eventstore_database_up"), up.sum("eventstore_log_last_position")) == (1, 1)
        await proxy.close()
        away = await scrape(read)
        assert away.sum("eventstore_database_up") == 0
        assert away.sum("eventstore_append_seconds_count") == 1
        assert not [each for each in away.samples if each.name.startswith(("eventstore_log", "eventstore_projection"))]


async def test_the_documentation_lists_exactly_what_is_exported(settings: ServerSettings, tmp_path: Path) -> None:
    create_keys(tmp_path / "audit.key")
    settings = settings.model_copy(update={"backup_dir": str(tmp_path), "audit_key": tmp_path / "audit.key"})
    async with EventStore(settings) as store, served(store, works=False) as here:
        is_begun = asyncio.Event()
        await store.append(uuid4(), [message()])
        await Rules(store).add(timedelta(days=30))
        rebuilding = asyncio.create_task(rebuild(store, on_progress=lambda _: is_begun.set()))
        await is_begun.wait()
        await cancel_and_wait([rebuilding])  # so that it is unfinished
        with pytest.raises(InputError):
            await store.append(uuid4(), [])
        await here.client.get("/health", headers={"Host": "evil.example"})
        exported = (await scrape(here.server_context.metrics)).samples
        documented = documented_metrics()
        assert {sample.name for sample in exported} == documented.keys()
        for sample in exported:
            assert sample.labels.keys() == documented[sample.name], sample


# HTTP

RESPONSES, SECONDS = "eventstore_http_responses_total", "eventstore_http_request_seconds_count"


async def test_responses_are_counted_by_route_and_status(here: Served) -> None:
    trip, route = await here.begin(), "/v1/conversations/{conversation}"
    for path in (f"/v1/conversations/{trip}", f"/v1/conversations/{trip}", f"/v1/conversations/{uuid4()}"):
        await here.client.get(path)
    await here.client.get("/v1/conversations/another%2Fid/messages", params={"limit": "x"})
    await here.client.delete("/v1/conversations")
    await here.client.get("/nothing/here")
    seen = Scrape((await here.client.get("/metrics")).text)
    assert seen.sum(RESPONSES, method="GET", route=route, status=200) == 2
    assert seen.sum(RESPONSES, method="GET", route=route, status=404) == 1
    assert seen.sum(SECONDS, method="GET", route=route) == 3
    assert seen.sum(RESPONSES, route=f"{route}/messages", status=422) == 1
    assert seen.sum(RESPONSES, method="POST", route="/v1/conversations", status=201) == 1
    assert seen.sum(RESPONSES, method="DELETE", route="/v1/conversations", status=405) == 1
    assert seen.sum(RESPONSES, route="none", status=404) == 1
    assert seen.sum(RESPONSES) == seen.sum(SECONDS) == 7
    assert seen.sum("eventstore_http_requests_in_flight") == 1, "the scrape itself"


async def test_clients_cannot_make_up_labels(here: Served) -> None:
    async def series() -> set[str]:
        for number in range(3):
            await here.client.request(f"VERB{number}", "/v1/conversations")
            await here.client.get(f"/no/{number}")
            await here.client.get(f"/v1/conversations/{uuid4()}", params={f"x{number}": number})
            await here.client.get("/health", headers={"Host": f"evil{number}.example"})
            await here.store.append(uuid4(), [message()], tenant=f"tenant {uuid4()}")
        text = (await here.client.get("/metrics")).text
        return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    first = await series()
    assert await series() == first | {each for each in first if "/metrics" in each} | await series()
    assert not [each for each in first if re.search(r"VERB|evil|tenant |[0-9a-f]{8}-", each)]


async def test_requests_that_a_limit_rejects_are_counted_by_the_limit(settings: Settings) -> None:
    limits = {"events_per_second": 2, "bytes_per_second": 100_000.0, "rate_per_second": 1000.0}
    async with (
        EventStore(settings.model_copy(update=limits)) as store,
        served(store, works=False, requires_tokens=True) as here,
    ):
        people = People(store, here.url)
        ana, eve = await people.person("acme", "ana"), await people.person("globex", "eve")
        trip = (await ana.post("/v1/conversations", {})).json()["id"]
        events = {"events": [{"event_type": "note", "content": 1}] * 500}
        assert (await ana.post(f"/v1/conversations/{trip}/events", events)).status_code == 201
        statuses = [(await ana.post("/v1/conversations", {})).status_code for _ in range(3)]
        large = {"events": [{"event_type": "note", "content": "x" * 900_000}]}
        await eve.post(f"/v1/conversations/{trip}/events", large)
        statuses += [(await eve.get("/v1/conversations")).status_code for _ in range(2)]
        assert statuses == [429] * 5
        await here.client.get("/v1/conversations")
        await people.close()
        seen = (await scrape(here.server_context.metrics)).by("reason", "eventstore_http_rejections_total")
        assert seen == {"events_per_second": 3, "bytes_per_second": 2, "no_token": 1}


REJECTED: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "two_lengths": ("POST", "/v1/conversations", {"Content-Length": "2", "Transfer-Encoding": "chunked"}, b"{}"),
    "host": ("GET", "/health", {"Host": "evil.example"}, b""),
    "foreign_page": ("POST", "/v1/conversations", {"Sec-Fetch-Site": "cross-site"}, b"{}"),
    "path": ("GET", "/v1/conversations/%FF", {}, b""),
    "query": ("GET", "/v1/conversations?limit=%FF", {}, b""),
    "media_type": ("POST", "/v1/conversations", {"Content-Type": "text/plain"}, b"{}"),
    "not_json": ("POST", "/v1/conversations", {"Content-Type": "application/json"}, b"{"),
    "repeated_member": ("POST", "/v1/conversations", {"Content-Type": "application/json"}, b'{"id": 1, "id": 2}'),
    "many_values": ("POST", "/v1/conversations", {"Content-Type": "application/json"}, b"[" * 1_000_001),
    "large_body": ("POST", "/v1/conversations", {"Content-Length": "999999999"}, b"{}"),
}
"""For each check of requests, one that it rejects; test_limits.py and test_tokens.py have the limits and the tokens."""


async def test_each_check_counts_what_it_rejects(here: Served) -> None:
    for method, path, headers, body in REJECTED.values():
        reader, writer = await asyncio.open_connection(*here.address)
        headers = {"Host": "127.0.0.1", "Connection": "close", "Content-Length": str(len(body))} | headers
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        assert re.match(rb"HTTP/1.1 4\d\d ", await reader.read()), path
        writer.close()
    seen = await scrape(here.server_context.metrics)
    assert seen.by("reason", "eventstore_http_rejections_total") == dict.fromkeys(REJECTED, 1)


async def test_only_administrators_of_the_own_tenant_see_what_all_tenants_do(protected: Served, people: People) -> None:
    store = protected.store

    async def read_as(tenant: str, scope: TokenScope) -> httpx.Response:
        made = await people.directory.add_key(tenant, "prometheus", scopes=[scope])
        token = made.token.get_secret_value()
        return await protected.client.get("/metrics", headers={"Authorization": f"Bearer {token}"})

    await people.directory.add_tenant("acme")
    assert "eventstore_append_seconds" in (await read_as(store.tenant, TokenScope.ADMIN)).text
    for tenant, scope in ((store.tenant, TokenScope.AUDIT), ("acme", TokenScope.ADMIN)):
        refused = await read_as(tenant, scope)
        assert (refused.status_code, refused.json()["title"]) == (403, "Forbidden"), tenant
    assert (await protected.client.get("/metrics")).status_code == 401
    behind_a_proxy = await protected.client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.7"})
    assert behind_a_proxy.status_code == 401
