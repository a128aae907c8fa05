"""Owners and members of conversations: the append changes them and checks them, one event at a time or in a group."""

from __future__ import annotations

from threading import Thread
from uuid import UUID, uuid4

import psycopg
import pytest
from support.logins import Logins, Session
from support.scoped_queries import open_as, set_scope
from support.sql_appends import append_events, append_group, append_one, members, share
from support.waiting import until

pytestmark = pytest.mark.shared_database


@pytest.fixture
def owned(service: Session) -> UUID:
    """A conversation that Ana owns."""
    conversation = uuid4()
    assert append_one(service, "acme", conversation, "ana") == "n"
    return conversation


@pytest.fixture
def reader(logins: Logins) -> Session:
    """A session of the service that reads the whole tenant."""
    session = set_scope(logins.session("app"), "acme")
    session.execute("SET ROLE eventstore_reader")
    return session


def test_the_user_who_begins_a_conversation_owns_it(reader: Session, owned: UUID) -> None:
    assert members(reader, owned) == {"ana": "own"}


def test_a_conversation_begun_by_the_tenant_has_no_owner_and_no_user_may_append_to_it(
    service: Session, reader: Session
) -> None:
    conversation = uuid4()
    assert append_one(service, "acme", conversation) == "n"
    assert members(reader, conversation) == {}
    assert append_one(service, "acme", conversation, "ana") == "f"


def test_an_append_by_another_user_is_refused_and_discloses_nothing(service: Session, owned: UUID) -> None:
    known = uuid4()
    assert append_one(service, "acme", owned, "ana", event_id=known) == "n"
    assert append_one(service, "acme", owned, "eve", event_id=known) == "f"
    assert append_one(service, "acme", owned, "eve", content="other", event_id=known) == "f"
    assert append_one(service, "acme", owned, "eve", expected=7) == "f"
    assert append_one(service, "acme", owned, "ana", event_id=known) == "k"


def test_a_member_with_read_access_may_not_append(service: Session, owned: UUID) -> None:
    share(service, "acme", owned, "ana", "bob", "read")
    assert append_one(service, "acme", owned, "bob") == "f"
    share(service, "acme", owned, "ana", "bob", "write")
    assert append_one(service, "acme", owned, "bob") == "n"
    share(service, "acme", owned, "ana", "bob", None)
    assert append_one(service, "acme", owned, "bob") == "f"


@pytest.mark.parametrize(
    ("event_type", "content"),
    [
        ("conversation.shared", {"user": "eve", "access": "write"}),
        ("conversation.unshared", {"user": "ana"}),
        ("conversation.deleted", {}),
        ("conversation.rewound", {"to_version": 0}),
    ],
)
def test_a_member_with_write_access_may_neither_share_nor_delete(
    service: Session, owned: UUID, event_type: str, content: object
) -> None:
    share(service, "acme", owned, "ana", "bob", "write")
    assert append_one(service, "acme", owned, "bob", event_type, content) == "f"
    assert append_one(service, "acme", owned, "ana", event_type, content) == "n"


def test_sharing_never_changes_the_owner(service: Session, reader: Session, owned: UUID) -> None:
    for access in ("read", None):
        assert share(service, "acme", owned, "", "ana", access) == "n"
        assert members(reader, owned) == {"ana": "own"}


def test_a_failed_append_changes_no_members(service: Session, reader: Session, owned: UUID) -> None:
    with service.transaction(force_rollback=True):
        share(service, "acme", owned, "ana", "bob")
    assert members(reader, owned) == {"ana": "own"}
    again = uuid4()
    assert (
        append_one(
            service,
            "acme",
            owned,
            "ana",
            "conversation.shared",
            {"user": "bob", "access": "read"},
            event_id=again,
        )
        == "n"
    )
    share(service, "acme", owned, "ana", "bob", None)
    assert (
        append_one(
            service,
            "acme",
            owned,
            "ana",
            "conversation.shared",
            {"user": "bob", "access": "read"},
            event_id=again,
        )
        == "k"
    )
    assert members(reader, owned) == {"ana": "own"}, "a repeated append does not share again"


@pytest.mark.parametrize(
    ("event_type", "content"),
    [
        ("conversation.shared", {"user": "bob", "access": "own"}),
        ("conversation.shared", {"user": "bob"}),
        ("conversation.shared", {"user": "", "access": "read"}),
        ("conversation.shared", {"user": 7, "access": "read"}),
        ("conversation.shared", {"user": "b" * 256, "access": "read"}),
        ("conversation.shared", {"user": "bob", "access": ["read"]}),
        ("conversation.unshared", {}),
        ("conversation.unshared", "bob"),
    ],
)
def test_an_invalid_share_is_rejected(service: Session, owned: UUID, event_type: str, content: object) -> None:
    assert append_one(service, "acme", owned, "ana", event_type, content) == "r"


def test_only_an_append_for_the_whole_tenant_may_name_the_owner(service: Session, reader: Session) -> None:
    forged, restored = uuid4(), uuid4()
    assert append_one(service, "acme", forged, "eve", metadata={"eventstore.owner": "ana"}) == "n"
    assert members(reader, forged) == {"eve": "own"}
    assert append_one(service, "acme", restored, metadata={"eventstore.owner": "ana"}) == "n"
    assert members(reader, restored) == {"ana": "own"}
    assert append_one(service, "acme", restored, "ana", metadata={"eventstore.owner": "eve"}) == "n"
    assert members(reader, restored) == {"ana": "own"}
    assert append_one(service, "acme", uuid4(), metadata={"eventstore.owner": 5}) == "r"


def test_each_append_of_a_group_has_its_own_outcome(service: Session, reader: Session, owned: UUID) -> None:
    new, other = uuid4(), uuid4()
    outcomes = append_group(
        service,
        ("acme", owned, "eve", "noted", 1),
        ("acme", new, "eve", "noted", 2),
        ("acme", new, "eve", "conversation.shared", {"user": "ana", "access": "read"}),
        ("globex", owned, "eve", "noted", 3),
        ("acme", other, "", "noted", 4),
    )
    assert outcomes == ["f", "n", "n", "n", "n"]
    assert members(reader, new) == {"eve": "own", "ana": "read"}
    assert members(reader, owned) == {"ana": "own"}
    assert members(reader, other) == {}


def test_an_append_without_a_user_is_rejected_and_does_not_act_for_the_whole_tenant(
    service: Session, owned: UUID
) -> None:
    for conversation in (owned, uuid4()):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="hold a null"):
            append_one(service, "acme", conversation, None)  # type: ignore[arg-type]


def test_a_group_with_two_users_of_one_conversation_is_rejected(service: Session, owned: UUID) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="for the same user"):
        append_group(service, ("acme", owned, "ana", "noted", 1), ("acme", owned, "eve", "noted", 2))


def test_append_events_checks_the_rights_of_the_current_user(service: Session, owned: UUID) -> None:
    set_scope(service, "acme", "eve")
    with pytest.raises(psycopg.Error, match="may not append this") as refused:
        append_events(service, "acme", owned)
    assert refused.value.sqlstate == "ES007"
    set_scope(service, "acme", "ana")
    append_events(service, "acme", owned)


_INSERT_EVENT = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, content,
                    digest)
VALUES (nextval('events_position'), now(), 1, 1, %s, gen_random_uuid(), 'acme', 'noted', '{}', sha256(''))
"""
_APPEND_TWO = """
SELECT unnest(a.outcomes)::text
  FROM append_group(ARRAY['acme', 'acme'], %s::uuid[], ARRAY[-2, -2], ARRAY[1, 2], ARRAY[1, 2],
                    ARRAY[gen_random_uuid(), gen_random_uuid()], ARRAY['noted', 'noted'], ARRAY[1, 1]::smallint[],
                    ARRAY['', ''], ARRAY['{}', '{}']::jsonb[], ARRAY['{}', '{}']::jsonb[], ARRAY['ana', 'ana'], 0) AS a
"""


def test_a_group_skips_a_locked_conversation_and_appends_to_the_others(
    service: Session, reader: Session, database_url: str
) -> None:
    busy, other = uuid4(), uuid4()
    outcomes: list[tuple[str]] = []
    owner = "eventstore_owner"
    with open_as(database_url, owner) as holder, open_as(database_url, owner) as blocker:
        with blocker.transaction(force_rollback=True), holder.transaction():
            holder.execute("SELECT pg_advisory_xact_lock(conversation_lock_key('acme', %s))", (busy,))
            blocker.execute(_INSERT_EVENT, (other,))
            group = Thread(
                target=lambda: outcomes.extend(service.execute(_APPEND_TWO, ([busy, other],)).fetchall()),
            )
            group.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
            pid = service.info.backend_pid
            until(
                lambda: blocker.execute(waiting, (pid,)).fetchone() == (1,),
                "the group waits for the other conversation",
            )
            assert append_one(set_scope(holder, "acme"), "acme", busy, "ana") == "n"
        group.join()
    assert outcomes == [("b",), ("n",)]
    assert members(reader, busy) == members(reader, other) == {"ana": "own"}


_SHARE_AND_APPEND = """
SELECT unnest(a.outcomes)::text
  FROM append_group(ARRAY['acme', 'acme'], %s::uuid[], ARRAY[-2, -2], ARRAY[1, 2], ARRAY[1, 2],
                    ARRAY[%s, gen_random_uuid()], ARRAY['conversation.shared', 'noted'], ARRAY[1, 1]::smallint[],
                    ARRAY['', ''], ARRAY['{"user": "bob", "access": "read"}', '{}']::jsonb[],
                    ARRAY['{}', '{}']::jsonb[], ARRAY['', ''], 0) AS a
"""


def test_a_share_in_a_group_that_skips_its_conversation_changes_no_member(
    service: Session, reader: Session, database_url: str
) -> None:
    busy, other, event_id = uuid4(), uuid4(), uuid4()
    outcomes: list[tuple[str]] = []
    owner = "eventstore_owner"
    with open_as(database_url, owner) as holder, open_as(database_url, owner) as blocker:
        with blocker.transaction(force_rollback=True), holder.transaction():
            holder.execute("SELECT pg_advisory_xact_lock(conversation_lock_key('acme', %s))", (busy,))
            blocker.execute(_INSERT_EVENT, (other,))
            group = Thread(
                target=lambda: outcomes.extend(
                    service.execute(_SHARE_AND_APPEND, ([busy, other], event_id)).fetchall()
                ),
            )
            group.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
            pid = service.info.backend_pid
            until(
                lambda: blocker.execute(waiting, (pid,)).fetchone() == (1,),
                "the group waits for the other conversation",
            )
            set_scope(holder, "acme")
            shared = {"user": "bob", "access": "read"}
            assert append_one(holder, "acme", busy, "", "conversation.shared", shared, event_id=event_id) == "n"
            assert share(holder, "acme", busy, "", "bob", None) == "n"
        group.join()
    assert outcomes == [("b",), ("n",)]
    assert members(reader, busy) == {}
