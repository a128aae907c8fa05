"""Each statement that reads goes along the index made for it, and costs the same however long the log has become.

With statistics and without, planned for its values and planned once for all: the server may choose any of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from support.longlog import RARE, conversation, fill, time_of
from support.plans import Kind, Plan, explain, explain_inside
from support.scoped_queries import open_as, set_scope
from support.servers import DatabaseServer

from eventstore import EventStore, Settings
from eventstore.database.queries import query
from eventstore.read import SPAN, Filter, RemainingRange, Source, conversation_source, log_source

SHORT, LONG = 5_000, 50_000
LIMIT = 100
ALONG_AN_INDEX = {"Index Scan", "Index Only Scan", "Limit", "Result", "Subquery Scan", "WindowAgg"}

KINDS: tuple[Kind, ...] = ("force_custom_plan", "force_generic_plan")
every_plan = pytest.mark.parametrize("kind", KINDS, ids=["custom", "generic"])
both_logs = pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "analyzed"])
both_ways = pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])


@dataclass(frozen=True)
class Logs:
    """Logs of several lengths, with statistics and without."""

    urls: Mapping[tuple[int, bool], str]
    superuser_urls: Mapping[tuple[int, bool], str]

    def plan(self, size: int, analyzed: bool, text: str, parameters: Mapping[str, Any], kind: Kind) -> Plan:
        """Return the plan of a query, under row-level security if it names a tenant."""
        tenant = parameters.get("tenant", "")
        with open_as(self.urls[size, analyzed], "eventstore_auditor" if tenant else "eventstore_projector") as one:
            return explain(set_scope(one, tenant), text, parameters, kind=kind)

    def plan_inside(self, size: int, analyzed: bool, name: str, parameters: Mapping[str, Any], kind: Kind) -> Plan:
        """Return how the statements are run inside the function that a query of the store calls: the last of them."""
        with psycopg.connect(self.superuser_urls[size, analyzed], autocommit=True) as superuser:
            superuser.execute(f"SET plan_cache_mode = {kind}".encode())
            *inside, _ = explain_inside(superuser, query("eventstore", name), parameters)
        return inside[-1]

    def page(self, size: int, analyzed: bool, source: Source, first: int, last: int, kind: Kind) -> Plan:
        """Return how the first page between two positions or versions is read."""
        parameters = source.given | RemainingRange(source, first, last, LIMIT).page_parameters()
        return self.plan(size, analyzed, source.text, parameters, kind)


@pytest.fixture(scope="module")
def logs(server: DatabaseServer) -> Iterator[Logs]:
    with ExitStack() as stack:
        urls, superuser_urls = {}, {}
        for size in (SHORT, LONG):
            for analyzed in (False, True):
                name = server.create_database()
                stack.callback(server.drop_database, name)
                urls[size, analyzed] = server.url(name)
                superuser_urls[size, analyzed] = server.superuser_url_of(name)
                fill(urls[size, analyzed], size, analyzed=analyzed)
        yield Logs(urls, superuser_urls)


FILTERS: dict[str, Callable[[int], Filter]] = {
    "all": lambda size: Filter(),
    "types": lambda size: Filter(types=["noted"]),
    "an actor's": lambda size: Filter(actor="ana"),
    "since": lambda size: Filter(since=time_of(size // 2)),
    "until": lambda size: Filter(until=time_of(size)),
    "everything": lambda size: Filter(["noted"], "ana", time_of(size // 2), time_of(size)),
}
every_filter = pytest.mark.parametrize("which", FILTERS.values(), ids=list(FILTERS))


@every_plan
@both_logs
@both_ways
@every_filter
@pytest.mark.parametrize("tenant", [None, "default"], ids=["all tenants", "a tenant"])
def test_the_log_is_read_along_its_positions(
    logs: Logs, which: Callable[[int], Filter], tenant: str | None, backwards: bool, analyzed: bool, kind: Kind
) -> None:
    short, long = (
        logs.page(
            size, analyzed, log_source(replace(which(size), tenant=tenant), backwards=backwards), size // 2, size, kind
        )
        for size in (SHORT, LONG)
    )
    assert long.indexes == {"idx_events_position"}, long.text
    assert long.kinds <= ALONG_AN_INDEX, long.text
    assert short.rows == long.rows == LIMIT
    assert_no_dearer(short, long)


@every_plan
@both_logs
@both_ways
@every_filter
def test_a_conversation_is_read_along_its_versions(
    logs: Logs, which: Callable[[int], Filter], backwards: bool, analyzed: bool, kind: Kind
) -> None:
    short, long = (
        logs.page(
            size, analyzed,
            conversation_source(conversation(7), replace(which(size), tenant="default"), backwards=backwards),
            1, 2**31 - 1, kind,
        )
        for size in (SHORT, LONG)
    )  # fmt: skip
    assert long.indexes == {"events_pkey"}, long.text
    assert long.kinds <= ALONG_AN_INDEX, long.text
    assert long.rows > 0
    assert_no_dearer(short, long)


@every_plan
@both_logs
def test_the_latest_receipts_are_found_among_few_events(logs: Logs, analyzed: bool, kind: Kind) -> None:
    parameters = {"tenant": "default", "limit": 20}
    plan = logs.plan(LONG, analyzed, query("agent_manager.console", "receipts"), parameters, kind)
    assert plan.indexes == {"idx_events_receipts"}, plan.text
    assert plan.kinds <= ALONG_AN_INDEX, plan.text


@every_plan
@both_logs
def test_the_latest_acts_are_read_along_the_versions_of_each_tenant(logs: Logs, analyzed: bool, kind: Kind) -> None:
    plan = logs.plan(LONG, analyzed, query("agent_manager.console", "acts"), {}, kind)
    assert plan.indexes == {"events_pkey"}, plan.text


@every_plan
@both_logs
@both_ways
def test_a_statement_passes_over_a_stretch_of_the_log_and_no_more(
    logs: Logs, backwards: bool, analyzed: bool, kind: Kind
) -> None:
    plan = logs.page(LONG, analyzed, log_source(Filter(tenant="rare"), backwards=backwards), 1, LONG, kind)
    assert plan.indexes == {"idx_events_position"}
    assert plan.kinds <= ALONG_AN_INDEX
    assert (plan.rows, plan.rows + plan.filtered) == (SPAN // RARE, SPAN)


@both_ways
async def test_stretches_of_the_log_are_one_stream(logs: Logs, clean_environment: None, backwards: bool) -> None:
    async with EventStore(Settings(database_url=logs.urls[LONG, True])) as store:
        rare = [event.position async for event in store.read_log(tenant="rare", backwards=backwards)]
        first = [event.position async for event in store.read_log(tenant="rare", backwards=backwards, limit=51)]
        none = [event async for event in store.read_log(tenant="nobody", backwards=backwards)]
    expected = list(range(RARE, LONG + 1, RARE))[:: -1 if backwards else 1]
    assert (rare, first, none) == (expected, expected[:51], [])


@both_ways
@pytest.mark.parametrize(("since", "until"), [(200, LONG), (49_000, LONG), (1, 300), (1, 48_000), (30_000, 30_100)])
async def test_a_range_of_time_is_read_from_end_to_end(
    logs: Logs, clean_environment: None, since: int, until: int, backwards: bool
) -> None:
    async with EventStore(Settings(database_url=logs.urls[LONG, True])) as store:
        events = store.read_log(
            since=time_of(since), until=time_of(until), actor="ana", all_tenants=True, backwards=backwards
        )
        found = [event.position async for event in events]
    assert found == [p for p in range(since, until) if p % 7 == 0][:: -1 if backwards else 1]


@every_plan
@both_logs
def test_the_horizon_costs_the_same_in_a_long_log(logs: Logs, analyzed: bool, kind: Kind) -> None:
    short, long = (logs.plan(size, analyzed, query("eventstore", "horizon"), {}, kind) for size in (SHORT, LONG))
    assert_no_dearer(short, long)


@every_plan
@both_logs
@pytest.mark.parametrize(("name", "parameter"), [("last_event", "horizon"), ("first_event", "first")])
def test_the_nearest_event_is_found_by_the_index(
    logs: Logs, name: str, parameter: str, analyzed: bool, kind: Kind
) -> None:
    short, long = (logs.plan_inside(size, analyzed, name, {parameter: size // 2}, kind) for size in (SHORT, LONG))
    assert long.indexes == {"idx_events_position"}, long.text
    assert long.kinds <= ALONG_AN_INDEX, long.text
    assert_no_dearer(short, long)


@every_plan
@both_logs
def test_the_bounds_of_a_time_range_are_found_by_the_index(logs: Logs, analyzed: bool, kind: Kind) -> None:
    short, long = (
        logs.plan_inside(size, analyzed, "time_edges", {"since": time_of(size // 2), "until": time_of(size)}, kind)
        for size in (SHORT, LONG)
    )
    assert long.indexes == {"idx_events_timestamp"}, long.text
    assert long.kinds <= ALONG_AN_INDEX, long.text
    assert_no_dearer(short, long)


@every_plan
@both_logs
def test_a_time_range_is_scanned_along_the_index_of_times(logs: Logs, analyzed: bool, kind: Kind) -> None:
    short, long = (
        logs.plan(
            size, analyzed, query("eventstore", "time_range"),
            {"since": time_of(size // 2), "until": time_of(size // 2 + 500)}, kind,
        )
        for size in (SHORT, LONG)
    )  # fmt: skip
    assert long.indexes == {"idx_events_timestamp"}, long.text
    assert "Seq Scan" not in long.kinds, long.text
    assert_no_dearer(short, long)


def assert_no_dearer(short: Plan, long: Plan) -> None:
    """A longer log has taller indexes, and that is all; the server may read a short table as a whole."""
    assert long.buffers <= 1.2 * short.buffers + 6, (short.text, long.text)
