"""Sessions that hold something for too long are found, with their process, and are gone when they are ended."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import pytest
from support.commandline import Eventstore
from support.waiting import until

from .conftest import Doctor, Installation, Type

pytestmark = [pytest.mark.any_server, pytest.mark.slow]

NOW = ("--warning", "0")
FORGOTTEN = "a forgotten shell"


def session(installation: Installation, role: str = "", **options: object) -> psycopg.Connection[object]:
    """A session of the service's login, which nobody ends."""
    connection = psycopg.connect(installation.url, application_name=FORGOTTEN, **options)  # type: ignore[arg-type]
    if role:
        connection.execute(f"SET ROLE {role}".encode())
    return connection


def test_a_transaction_that_is_left_open_is_found(
    installation: Installation, doctor: Doctor, type_remedy: Type
) -> None:
    with suppress(psycopg.OperationalError), session(installation) as left:
        left.execute("SELECT")
        found = doctor.until("transactions", *NOW, contains=FORGOTTEN)
        assert (
            f"process {left.info.backend_pid} ({FORGOTTEN}, login eventstore, idle in transaction)" in found["finding"]
        )
        assert doctor("--warning", "0", "--critical", "0")["transactions"][0]["severity"] == "critical"
        type_remedy(found["remedy"])
    doctor.until_well()


def test_an_append_that_is_left_open_is_found(installation: Installation, doctor: Doctor, type_remedy: Type) -> None:
    with suppress(psycopg.OperationalError), session(installation, "eventstore_owner") as left:
        left.execute("SELECT register_append()")
        found = doctor.until("appends", *NOW, contains=FORGOTTEN)
        assert "readers see no event after it" in found["finding"]
        assert found["remedy"] == f"SELECT pg_terminate_backend({left.info.backend_pid})"
        type_remedy(found["remedy"])
    doctor.until_well()


def test_a_prepared_append_is_found(installation: Installation, doctor: Doctor, type_remedy: Type) -> None:
    with session(installation, "eventstore_owner") as left:
        left.execute("SELECT register_append()")
        left.execute("PREPARE TRANSACTION 'half done'")
    found = doctor.until("appends", *NOW, contains="the prepared transaction half done")
    type_remedy(found["remedy"].partition(",")[0])
    doctor.until_well()


def test_a_session_that_others_wait_for_is_found(installation: Installation, doctor: Doctor, type_remedy: Type) -> None:
    with (
        suppress(psycopg.OperationalError),
        session(installation, autocommit=True) as left,
        session(installation) as waiting,
    ):
        left.execute("SELECT pg_advisory_lock(42)")
        idle = doctor.until("locks", *NOW, contains="is idle, and holds 1 advisory lock(s)")
        thread = threading.Thread(target=lambda: waiting.execute("SELECT pg_advisory_xact_lock(42)"))
        thread.start()
        found = doctor.until("locks", *NOW, contains="blocks 1 session(s)")
        assert found["remedy"] == idle["remedy"] == f"SELECT pg_terminate_backend({left.info.backend_pid})"
        type_remedy(found["remedy"])
        thread.join(30)
        waiting.rollback()
    doctor.until_well()


def test_a_login_near_its_limit_of_connections_is_found(installation: Installation, doctor: Doctor) -> None:
    with installation.superuser() as superuser:
        row = superuser.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'eventstore'").fetchone()
        assert row is not None
        superuser.execute(f"ALTER ROLE eventstore CONNECTION LIMIT {row[0] + 1}".encode())
        found = doctor.until("connections", contains="the CONNECTION LIMIT of the login eventstore")
        assert "most by " in found["finding"]
        superuser.execute("ALTER ROLE eventstore CONNECTION LIMIT -1")
    doctor.until_well()


def test_a_server_without_a_free_connection_is_not_examined(
    installation: Installation, doctor: Doctor, eventstore: Eventstore
) -> None:
    installation.execute("ALTER ROLE eventstore CONNECTION LIMIT 1")
    found = doctor("--warning", "0")
    installation.execute("ALTER ROLE eventstore CONNECTION LIMIT -1")
    assert (doctor.code, found["connection"][0]["severity"]) == (3, "critical")
    assert "too many connections for role" in found["connection"][0]["finding"]
    assert "CONNECTION LIMIT" in found["connection"][0]["remedy"]
    doctor.until_well()


def test_a_full_queue_of_notifications_is_found(installation: Installation, doctor: Doctor) -> None:
    with psycopg.connect(installation.url) as listening, psycopg.connect(installation.url, autocommit=True) as filling:
        if filling.info.server_version < 170000:
            pytest.skip("the queue of 8 GB takes too long to fill")
        listening.execute("LISTEN nothing")
        listening.commit()
        listening.execute("SELECT 1")  # a transaction that stays open: it reads no notification
        with suppress(psycopg.errors.ProgramLimitExceeded):
            while True:
                filling.execute("SELECT pg_notify('nothing', repeat('x', 7000) || n) FROM generate_series(1, 8) n")
        assert doctor("--warning", "0")["notify_queue"][0]["severity"] == "critical"
        listening.rollback()
    doctor.until_well()


def test_what_keeps_dead_rows_is_found(installation: Installation, doctor: Doctor, type_remedy: Type) -> None:
    with installation.superuser() as superuser:
        superuser.execute(
            "CREATE OR REPLACE PROCEDURE use_ids() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..1000001 LOOP "
            "PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )
        with suppress(psycopg.OperationalError), session(installation) as left:
            left.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            left.execute("SELECT count(*) FROM pg_class")
            superuser.execute("SET synchronous_commit = off")
            superuser.execute("CALL use_ids()")
            found = doctor.until("vacuum_horizon", contains=FORGOTTEN)
            type_remedy(found["remedy"])
        superuser.execute("DROP PROCEDURE use_ids")
    doctor.until_well()


def test_a_stopped_worker_a_lag_and_a_missing_worker_are_found(installation: Installation, doctor: Doctor) -> None:
    doctor.until_well()
    os.kill(installation.worker.pid, signal.SIGSTOP)
    try:
        installation.append()
        stalled = doctor.until("workers", *NOW, contains="do not advance")
        assert stalled["severity"] == "critical"
        assert "pg_terminate_backend" in stalled["remedy"]
        behind = doctor.until("lag", *NOW, contains="the log is at position")
        assert behind["remedy"].startswith("eventstore status")
    finally:
        os.kill(installation.worker.pid, signal.SIGCONT)
    doctor.until_well()


def test_a_parked_conversation_is_found_and_applied_again(
    installation: Installation, doctor: Doctor, eventstore: Eventstore
) -> None:
    installation.execute("ALTER TABLE messages ADD CONSTRAINT broken CHECK (content <> 'unlucky')")
    installation.append("unlucky")
    found = doctor.until("parked", contains="messages has parked 1 conversation(s)")
    assert "broken" in found["finding"]
    assert "broken" in eventstore("parked").out
    installation.execute("ALTER TABLE messages DROP CONSTRAINT broken")
    assert eventstore("retry").code == 0
    doctor.until_well()


def test_clocks_that_differ_are_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_manager.doctor.database.time", lambda: datetime.now(UTC).timestamp() + 90)
    found = doctor.until("clock")
    assert found["finding"] == "the server's clock is 90 s behind this machine's"


def test_archiving_that_fails_and_a_large_pg_wal_are_found(
    installation: Installation, doctor: Doctor, type_remedy: Type
) -> None:
    installation.execute("ALTER SYSTEM SET max_wal_size = '32MB'; ALTER SYSTEM SET min_wal_size = '32MB'")
    installation.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    installation.execute("ALTER SYSTEM SET archive_command = 'false'")
    for _ in range(10):
        installation.execute("SELECT pg_logical_emit_message(true, '', 'x'); SELECT pg_switch_wal()")
    found = doctor.until("archiving")
    assert "archiving WAL has failed" in found["finding"]
    assert doctor.until("wal_size")["severity"] == "warning"
    assert doctor.until("replication_slots")["severity"] == "critical"
    installation.execute("ALTER SYSTEM SET archive_command = 'true'; SELECT pg_drop_replication_slot('forgotten')")
    installation.execute(
        "SELECT pg_reload_conf(); SELECT pg_logical_emit_message(true, '', 'x'); SELECT pg_switch_wal()"
    )
    until(lambda: "archiving" not in doctor.problems(), "the archiver has caught up")
    installation.execute("CHECKPOINT; ALTER SYSTEM RESET max_wal_size; ALTER SYSTEM RESET min_wal_size")
    doctor.until_well()
