"""``eventstore up`` without clients: it takes less than one per cent of a core, and writes nothing.

``EVENTSTORE_TEST_REST_SECONDS`` is the length of a measurement, ``EVENTSTORE_TEST_REST_EVENTS`` that of the log.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from uuid import uuid4

import psutil
import psycopg
import pytest
from support.processes import Commands
from support.waiting import until

from eventstore import MessageAdded, Settings, SyncEventStore
from eventstore.database.embedded.embedded_server import EmbeddedServer
from projections import catch_up, wait_for

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("EVENTSTORE_TEST_REST_SECONDS", "6"))
EVENTS = int(os.environ.get("EVENTSTORE_TEST_REST_EVENTS", "1000"))
SHARE = 0.01
DEADLINE_SECONDS = 90 + 3 * SECONDS
"""What the start has left to do, such as statistics of the new tables, is done by then."""


def cpu_seconds(up: int, postmaster: int) -> float:
    """The processor time of the command, the server, and all their processes, those that have ended included."""
    roots = [psutil.Process(up), psutil.Process(postmaster)]
    times = [root.cpu_times() for root in roots]
    ended = sum(each.children_user + each.children_system for each in times)
    total = sum(each.user + each.system for each in times)
    for root in roots:
        for child in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended just now; at rest, few do
                with_children = child.cpu_times()
                total += with_children.user + with_children.system
    keeper = roots[1].parent()
    return total + ended + (sum(keeper.cpu_times()[:2]) if keeper is not None and keeper.pid > 1 else 0)


def written(server: EmbeddedServer) -> tuple[object, object]:
    """The end of the write-ahead log, and the next transaction id."""
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())")
        found = row.fetchone()
    assert found is not None
    return found[0], found[1]


def test_at_rest_it_takes_less_than_a_hundredth_of_a_core_and_writes_nothing(
    own_server: EmbeddedServer, started: Commands
) -> None:
    data_dir = own_server.data_dir
    up = started.start("up", "--data-dir", str(data_dir), "--port", "0")
    up.until_printed("Ctrl-C")
    with SyncEventStore(Settings(data_dir=data_dir)) as store:
        for _ in range(EVENTS // 100):
            store.append(uuid4(), [MessageAdded(role="user", content=f"message {number}") for number in range(100)])
        store.portal.call(catch_up(store.asynchronous))
    assert own_server.pid is not None
    postmaster = own_server.pid
    shares: list[float] = []

    def is_at_rest() -> bool:
        before, began, used = written(own_server), time.monotonic(), cpu_seconds(up.pid, postmaster)
        time.sleep(SECONDS)  # the measurement
        shares.append((cpu_seconds(up.pid, postmaster) - used) / (time.monotonic() - began))
        return shares[-1] < SHARE and written(own_server) == before

    try:
        until(is_at_rest, "the server is at rest", DEADLINE_SECONDS)
    finally:
        print("shares of a core:", *(f"{share:.2%}" for share in shares))
    with SyncEventStore(Settings(data_dir=data_dir)) as store:  # and what is appended then is applied at once
        position = store.append(uuid4(), [MessageAdded(role="user", content="at last")]).position
        store.portal.call(wait_for(store.asynchronous, position, timeout=5))
    assert up.interrupt() == 0
