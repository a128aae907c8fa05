"""Each fault, made by hand in a real server, is found by its check, and is gone when the remedy has been typed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from .conftest import Doctor, Installation, Type

pytestmark = pytest.mark.any_server


@dataclass(frozen=True)
class Fault:
    """A fault, made by statements.

    Attributes:
        says: a part of the finding.
        remedy: what to type, if the finding's remedy has words beside it.
        undo: statements that undo it, if the finding's remedy has none.
        severity: of the finding.
    """

    check: str
    statements: str
    says: str
    remedy: str = ""
    severity: str = "critical"
    undo: str = ""


GUARDS_OFF = "ALTER TABLE events DISABLE TRIGGER ALL"
GUARDS_ON = "; ".join(
    f"ALTER TABLE events ENABLE ALWAYS TRIGGER {trigger}"
    for trigger in ("events_are_append_only", "event_is_append_only", "erasure_is_complete")
)

SERVER = [
    Fault("primary", "ALTER ROLE eventstore SET default_transaction_read_only = on", "only read"),
    Fault("durability", "ALTER SYSTEM SET fsync = off", "fsync is off for the server"),
    Fault("durability", "ALTER SYSTEM SET full_page_writes = off", "full_page_writes is off for the server"),
    Fault(
        "durability", "ALTER ROLE eventstore SET synchronous_commit = off",
        "synchronous_commit is off for the role eventstore:", severity="warning",
    ),
    Fault(
        "durability", "ALTER ROLE eventstore IN DATABASE flowagents SET synchronous_commit = no",
        "synchronous_commit is off for the role eventstore in this database", severity="warning",
    ),
    Fault(
        "durability", "ALTER DATABASE flowagents SET synchronous_commit = off",
        "synchronous_commit is off for this database", severity="warning",
    ),
    Fault("durability", "ALTER ROLE ALL SET zero_damaged_pages = on", "zero_damaged_pages is on for all roles"),
    Fault("durability", "ALTER SYSTEM SET ignore_checksum_failure = on",
          "ignore_checksum_failure is on for the server"),
    Fault(
        "standbys", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 (one, two)'",
        "wait for 2 synchronous standby(s) (synchronous_standby_names), and 0 are connected",
        "ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()",
    ),
    Fault(
        "replication_slots", "SELECT pg_create_physical_replication_slot('forgotten', true)",
        "the replication slot forgotten is not in use", "SELECT pg_drop_replication_slot('forgotten')",
        severity="warning",
    ),
    Fault(
        "wraparound",
        "UPDATE pg_database SET datfrozenxid = "
        "((pg_current_xact_id()::text::bigint - 1700000000) & 4294967295)::text::xid "
        "WHERE datname = current_database()",
        "the database flowagents has rows that are 17", undo="VACUUM (FREEZE)",
    ),
    Fault("collation", "UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()",
          "the collation of the database is of version 0, and the system's of version 1", severity="warning"),
    Fault("prepared_transactions", "BEGIN; CREATE ROLE never; PREPARE TRANSACTION 'forgotten'",
          "the transaction forgotten of the login postgres is prepared", "ROLLBACK PREPARED 'forgotten'",
          severity="warning"),
    Fault("login", "ALTER ROLE eventstore BYPASSRLS", "the login eventstore has BYPASSRLS"),
]  # fmt: skip
"""Faults of the server and of the database."""

SCHEMA = [
    Fault("roles", "GRANT DELETE ON events TO eventstore_reader", "altered rights on: table events",
          severity="warning"),
    Fault("roles", "ALTER ROLE eventstore_app INHERIT", "altered role: eventstore_app",
          undo="ALTER ROLE eventstore_app NOINHERIT", severity="warning"),
    Fault("row_level_security", "ALTER TABLE events NO FORCE ROW LEVEL SECURITY",
          "altered row-level security on: events"),
    Fault("row_level_security", "ALTER TABLE messages DISABLE ROW LEVEL SECURITY",
          "missing row-level security on: messages"),
    Fault("row_level_security", "CREATE POLICY everything ON tasks USING (true)",
          "unexpected policy: everything on tasks"),
    Fault("schema", "ALTER FUNCTION search_for SECURITY INVOKER", "altered security of function: search_for(",
          undo="ALTER FUNCTION search_for SECURITY DEFINER"),
    Fault("autovacuum", "ALTER SYSTEM SET autovacuum = off", "autovacuum is off", severity="warning"),
    Fault("autovacuum", "ALTER TABLE events SET (autovacuum_enabled = false)", "autovacuum is off for the table events",
          severity="warning"),
    Fault("unlogged_tables", "ALTER TABLE checkpoints SET UNLOGGED", "the table checkpoints is unlogged"),
    Fault("indexes", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_events_timestamp'::regclass",
          "the index idx_events_timestamp is invalid", severity="warning"),
    Fault("integrity", "ALTER SEQUENCE events_position CACHE 10", "the sequence events_position was altered"),
    Fault(
        "digests",
        f"{GUARDS_OFF}; UPDATE events SET actor = actor || '!' WHERE position <= 3; {GUARDS_ON}",
        "of the newest events are not as they were appended, first at position 1 ",
        undo=f"{GUARDS_OFF}; UPDATE events SET actor = rtrim(actor, '!') WHERE position <= 3; {GUARDS_ON}",
    ),
    Fault(
        "future_events",
        "INSERT INTO events SELECT nextval('events_position'), clock_timestamp() + interval '1 hour', 1, 1, "
        "gen_random_uuid(), gen_random_uuid(), 'default', 'noted', '', '{}', '{}', NULL, sha256('')",
        "in the future: the server's clock was set back",
        undo=f"{GUARDS_OFF}; UPDATE events SET timestamp = now() WHERE event_type = 'noted'; {GUARDS_ON}; "
        "eventstore rebuild --accept-differences",
        severity="warning",
    ),
    Fault("triggers", "ALTER TABLE events DISABLE TRIGGER events_are_append_only",
          "disabled trigger: events_are_append_only on events"),
]  # fmt: skip
"""Faults of the store's schema and of the log."""

NEWER = [
    Fault(
        "migrations", "INSERT INTO eventstore_migrations VALUES ('99990101000000'), ('0 99990101000000')",
        "migrations that this version does not know",
        undo="DELETE FROM eventstore_migrations WHERE version LIKE '%9990101000000'",
    ),
]  # fmt: skip
"""A fault with which the schema cannot be examined."""


@pytest.mark.parametrize("faults", [SERVER, SCHEMA, NEWER], ids=["server", "schema", "newer"])
@pytest.mark.slow
def test_faults_are_found_together_and_gone_after_their_remedies(
    faults: list[Fault], installation: Installation, doctor: Doctor, type_remedy: Type
) -> None:
    doctor.until_well()
    for fault in faults:
        installation.execute(fault.statements)
    remedies = []
    try:
        for fault in faults:
            found = doctor.until(fault.check, "--warning", "0", contains=fault.says)
            assert (fault.says, found["severity"]) == (fault.says, fault.severity)
            assert fault.remedy in found["remedy"]
            remedies.append(fault.undo or fault.remedy or found["remedy"])
        assert doctor.code == 2
    finally:
        for remedy in dict.fromkeys(remedies):
            type_remedy(remedy)
    doctor.until_well()
