"""The recipe of docs/guides/high-availability.md: Patroni replaces a machine that dies, and clients notice a pause."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from time import monotonic

import psycopg
import pytest
from support import guide
from support.acknowledged import Writers, compare_with_log, compare_with_read_tables, seconds_without_writes
from support.follow import Follower
from support.guide import commands
from support.patroni import Cluster, Machine, is_installed, patroni_cluster
from support.processes import Commands, run

from eventstore import EventStore, Settings

pytestmark = [
    pytest.mark.any_server,
    pytest.mark.skipif(not is_installed(), reason="needs Debian's patroni, etcd and PostgreSQL 15"),
    pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8"),
]
ACKNOWLEDGED = 100
MAX_SECONDS_WITHOUT_WRITES = 60


@pytest.fixture
def cluster(clean_environment: None) -> Iterator[Cluster]:
    with patroni_cluster() as cluster:
        yield cluster


def settings_of(cluster: Cluster) -> Settings:
    return Settings(database_url=cluster.url, connect_timeout=4)


async def test_patroni_replaces_a_primary_and_nothing_acknowledged_is_lost(
    cluster: Cluster, started: Commands, record_property: Callable[[str, object], None]
) -> None:
    for command in commands(guide.MIGRATE):
        assert run(*command[1:], DATABASE_URL=cluster.url).returncode == 0, command
    with psycopg.connect(cluster.url) as connection:
        row = connection.execute("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user").fetchone()
        assert row == (False, False)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.url.replace("change-me-5", "guessed"))
    seconds: dict[str, float] = {}
    async with EventStore(settings_of(cluster)) as store, EventStore(settings_of(cluster)) as other:
        worker = started.start("project", DATABASE_URL=cluster.url)
        async with Writers([store, other]) as writers, Follower(other.subscribe()) as follower:

            async def kill(name: str, victim: Machine) -> None:
                await writers.until_more(ACKNOWLEDGED)
                killed_at = monotonic()
                await asyncio.to_thread(victim.kill)
                await writers.until_more(ACKNOWLEDGED)
                seconds[name] = seconds_without_writes(writers.times, killed_at)

            first = await asyncio.to_thread(cluster.until_synchronous)
            await kill("primary", first)
            second = await asyncio.to_thread(cluster.leader)
            assert second not in (first, None)

            # Started again, the machine becomes the synchronous standby, and then the primary, for maintenance.
            first.start_patroni()
            assert await asyncio.to_thread(cluster.until_synchronous) is second
            switched_at = monotonic()
            listed, switched, shown = await asyncio.to_thread(second.run_patronictl)
            assert "Sync Standby" in listed
            assert "Successfully switched over" in switched
            assert "synchronous_mode: true" in shown
            assert await asyncio.to_thread(cluster.until_synchronous) is first
            await writers.until_more(ACKNOWLEDGED)
            seconds["switchover"] = seconds_without_writes(writers.times, switched_at)

            # A standby that dies is waited for no longer.
            await kill("standby", second)
            assert await asyncio.to_thread(cluster.leader) is first
            await writers.end()
            events = await compare_with_log(writers, follower, store, cluster.url)
        print("seconds without writes:", {name: round(each, 1) for name, each in seconds.items()})
        record_property("seconds without writes", seconds)
        assert max(seconds.values()) < MAX_SECONDS_WITHOUT_WRITES
        assert not worker.ended
        await compare_with_read_tables(events, store, cluster.url)
