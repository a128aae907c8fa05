"""Whose a conversation is, and with whom it is shared: settled in the append itself, and provable by the log."""

from __future__ import annotations

from threading import Thread
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.logins import Logins, Session
from support.scoped_queries import ask, connected_as
from support.sql_appends import members, say, say_together, share, type_in
from support.waiting import until


@pytest.fixture
def trip(service: Session) -> UUID:
    """A conversation that Ana has begun."""
    conversation = uuid4()
    assert say(service, "acme", conversation, "ana") == "n"
    return conversation


@pytest.fixture
def onlooker(logins: Logins) -> Session:
    """A reader of the service who asks for the whole tenant."""
    session = ask(logins.session("app"), "acme")
    session.execute("SET ROLE eventstore_reader")
    return session


def test_who_begins_a_conversation_owns_it(onlooker: Session, trip: UUID) -> None:
    assert members(onlooker, trip) == {"ana": "own"}


def test_what_the_whole_tenant_begins_has_no_owner_and_is_no_user_s(service: Session, onlooker: Session) -> None:
    conversation = uuid4()
    assert say(service, "acme", conversation) == "n"
    assert members(onlooker, conversation) == {}
    assert say(service, "acme", conversation, "ana") == "f"


def test_a_stranger_may_not_append_and_nothing_tells_him_what_is_there(service: Session, trip: UUID) -> None:
    known = uuid4()
    assert say(service, "acme", trip, "ana", event_id=known) == "n"
    assert say(service, "acme", trip, "eve", event_id=known) == "f"
    assert say(service, "acme", trip, "eve", content="other", event_id=known) == "f"
    assert say(service, "acme", trip, "eve", expected=7) == "f"
    assert say(service, "acme", trip, "ana", event_id=known) == "k"


def test_what_is_read_may_not_be_written(service: Session, trip: UUID) -> None:
    share(service, "acme", trip, "ana", "bob", "read")
    assert say(service, "acme", trip, "bob") == "f"
    share(service, "acme", trip, "ana", "bob", "write")
    assert say(service, "acme", trip, "bob") == "n"
    share(service, "acme", trip, "ana", "bob", None)
    assert say(service, "acme", trip, "bob") == "f"


@pytest.mark.parametrize(
    ("event_type", "content"),
    [
        ("conversation.shared", {"user": "eve", "access": "write"}),
        ("conversation.unshared", {"user": "ana"}),
        ("conversation.deleted", {}),
    ],
)
def test_who_may_write_may_neither_share_nor_delete(
    service: Session, trip: UUID, event_type: str, content: object
) -> None:
    share(service, "acme", trip, "ana", "bob", "write")
    assert say(service, "acme", trip, "bob", event_type, content) == "f"
    assert say(service, "acme", trip, "ana", event_type, content) == "n"


def test_nothing_takes_a_conversation_from_its_owner(service: Session, onlooker: Session, trip: UUID) -> None:
    for access in ("read", None):
        assert share(service, "acme", trip, "", "ana", access) == "n"
        assert members(onlooker, trip) == {"ana": "own"}


def test_a_failed_append_changes_no_members(service: Session, onlooker: Session, trip: UUID) -> None:
    with service.transaction(force_rollback=True):
        share(service, "acme", trip, "ana", "bob")
    assert members(onlooker, trip) == {"ana": "own"}
    again = uuid4()
    assert (
        say(service, "acme", trip, "ana", "conversation.shared", {"user": "bob", "access": "read"}, event_id=again)
        == "n"
    )
    share(service, "acme", trip, "ana", "bob", None)
    assert (
        say(service, "acme", trip, "ana", "conversation.shared", {"user": "bob", "access": "read"}, event_id=again)
        == "k"
    )
    assert members(onlooker, trip) == {"ana": "own"}, "a repeated append shares nothing anew"


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
def test_what_shares_nothing_is_refused(service: Session, trip: UUID, event_type: str, content: object) -> None:
    assert say(service, "acme", trip, "ana", event_type, content) == "r"


def test_an_event_names_its_owner_himself_and_nobody_else(service: Session, onlooker: Session) -> None:
    forged, restored = uuid4(), uuid4()
    assert say(service, "acme", forged, "eve", metadata={"eventstore.owner": "ana"}) == "n"
    assert members(onlooker, forged) == {"eve": "own"}
    assert say(service, "acme", restored, metadata={"eventstore.owner": "ana"}) == "n"
    assert members(onlooker, restored) == {"ana": "own"}
    assert say(service, "acme", restored, "ana", metadata={"eventstore.owner": "eve"}) == "n"
    assert members(onlooker, restored) == {"ana": "own"}
    assert say(service, "acme", uuid4(), metadata={"eventstore.owner": 5}) == "r"


def test_in_a_group_each_has_a_fate_of_its_own(service: Session, onlooker: Session, trip: UUID) -> None:
    new, other = uuid4(), uuid4()
    outcomes = say_together(
        service,
        ("acme", trip, "eve", "noted", 1),
        ("acme", new, "eve", "noted", 2),
        ("acme", new, "eve", "conversation.shared", {"user": "ana", "access": "read"}),
        ("globex", trip, "eve", "noted", 3),
        ("acme", other, "", "noted", 4),
    )
    assert outcomes == ["f", "n", "n", "n", "n"]
    assert members(onlooker, new) == {"eve": "own", "ana": "read"}
    assert members(onlooker, trip) == {"ana": "own"}
    assert members(onlooker, other) == {}


def test_a_group_may_not_hold_two_users_of_one_conversation(service: Session, trip: UUID) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="different users"):
        say_together(service, ("acme", trip, "ana", "noted", 1), ("acme", trip, "eve", "noted", 2))


def test_appended_by_hand_it_goes_by_the_user_who_asks(service: Session, trip: UUID) -> None:
    ask(service, "acme", "eve")
    with pytest.raises(psycopg.Error, match="may not append this") as refused:
        type_in(service, "acme", trip)
    assert refused.value.sqlstate == "ES007"
    ask(service, "acme", "ana")
    type_in(service, "acme", trip)


USERS = st.sampled_from(["ana", "bob", "eve"])
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["", "ana", "bob", "eve"]), USERS, st.sampled_from(["read", "write", None])
    )
    | st.tuples(st.integers(0, 2), st.sampled_from(["", "ana", "bob", "eve"]), st.none(), st.none()),
    max_size=25,
)


@given(STEPS)
def test_members_are_those_of_a_simple_model_and_the_log_gives_them(
    service: Session, onlooker: Session, database_url: str, steps: list[tuple[int, str, str | None, str | None]]
) -> None:
    conversations = [uuid4() for _ in range(3)]
    expected: list[dict[str, str] | None] = [None, None, None]
    for number, user, whom, access in steps:
        held = expected[number]
        right = "own" if held is None or not user else held.get(user)
        allowed = right == "own" if whom is not None else right in ("own", "write")
        if whom is None:
            outcome = say(service, "acme", conversations[number], user)
        else:
            outcome = share(service, "acme", conversations[number], user, whom, access)
        assert outcome == ("n" if allowed else "f")
        if not allowed:
            continue
        held = expected[number] = ({user: "own"} if user else {}) if held is None else held
        if whom is not None and held.get(whom) != "own":
            held.pop(whom, None)
            held |= {whom: access} if access else {}
    assert [members(onlooker, one) for one in conversations] == [held or {} for held in expected]
    with connected_as(database_url) as projector:
        assert projector.execute("SELECT * FROM differing_members()").fetchall() == []


def test_members_that_the_log_does_not_give_are_found(service: Session, trip: UUID, database_url: str) -> None:
    with connected_as(database_url, "eventstore_owner") as owner:
        owner.execute("INSERT INTO conversation_members VALUES ('acme', %s, 'eve', 'read')", (trip,))
        owner.execute("UPDATE conversation_members SET access = 'write' WHERE user_id = 'ana'")
    with connected_as(database_url) as projector:
        found = projector.execute("SELECT user_id, expected, found FROM differing_members() ORDER BY 1").fetchall()
    assert found == [("ana", "own", "write"), ("eve", None, "read")]


_UNSAID = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, content,
                    digest)
VALUES (nextval('events_position'), now(), 1, 1, %s, gen_random_uuid(), 'acme', 'noted', '{}', sha256(''))
"""
_AT_ONCE = """
SELECT a.outcome::text
  FROM append_group(ARRAY['acme', 'acme'], %s::uuid[], ARRAY[-2, -2], ARRAY[1, 2], ARRAY[1, 2],
                    ARRAY[gen_random_uuid(), gen_random_uuid()], ARRAY['noted', 'noted'], ARRAY[1, 1]::smallint[],
                    ARRAY['', ''], ARRAY['{}', '{}']::jsonb[], ARRAY['{}', '{}']::jsonb[], ARRAY['ana', 'ana'], 0) AS a
"""


def test_a_busy_conversation_that_begins_meanwhile_does_not_hinder_the_others(
    service: Session, onlooker: Session, database_url: str
) -> None:
    busy, other = uuid4(), uuid4()
    outcomes: list[tuple[str]] = []
    owner = "eventstore_owner"
    with connected_as(database_url, owner) as holder, connected_as(database_url, owner) as blocker:
        with blocker.transaction(force_rollback=True), holder.transaction():
            holder.execute("SELECT pg_advisory_xact_lock(conversation_lock_key('acme', %s))", (busy,))
            blocker.execute(_UNSAID, (other,))
            group = Thread(
                target=lambda: outcomes.extend(service.execute(_AT_ONCE, ([busy, other],)).fetchall()),
            )
            group.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
            pid = service.info.backend_pid
            until(lambda: blocker.execute(waiting, (pid,)).fetchone() == (1,), "the group waits for the other one")
            assert say(ask(holder, "acme"), "acme", busy, "ana") == "n"
        group.join()
    assert outcomes == [("b",), ("n",)]
    assert members(onlooker, busy) == members(onlooker, other) == {"ana": "own"}


_SHARED_AT_ONCE = """
SELECT a.outcome::text
  FROM append_group(ARRAY['acme', 'acme'], %s::uuid[], ARRAY[-2, -2], ARRAY[1, 2], ARRAY[1, 2],
                    ARRAY[%s, gen_random_uuid()], ARRAY['conversation.shared', 'noted'], ARRAY[1, 1]::smallint[],
                    ARRAY['', ''], ARRAY['{"user": "bob", "access": "read"}', '{}']::jsonb[],
                    ARRAY['{}', '{}']::jsonb[], ARRAY['', ''], 0) AS a
"""


def test_a_busy_conversation_keeps_its_members(service: Session, onlooker: Session, database_url: str) -> None:
    busy, other, event_id = uuid4(), uuid4(), uuid4()
    outcomes: list[tuple[str]] = []
    owner = "eventstore_owner"
    with connected_as(database_url, owner) as holder, connected_as(database_url, owner) as blocker:
        with blocker.transaction(force_rollback=True), holder.transaction():
            holder.execute("SELECT pg_advisory_xact_lock(conversation_lock_key('acme', %s))", (busy,))
            blocker.execute(_UNSAID, (other,))
            group = Thread(
                target=lambda: outcomes.extend(service.execute(_SHARED_AT_ONCE, ([busy, other], event_id)).fetchall()),
            )
            group.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
            pid = service.info.backend_pid
            until(lambda: blocker.execute(waiting, (pid,)).fetchone() == (1,), "the group waits for the other one")
            ask(holder, "acme")
            shared = {"user": "bob", "access": "read"}
            assert say(holder, "acme", busy, "", "conversation.shared", shared, event_id=event_id) == "n"
            assert share(holder, "acme", busy, "", "bob", None) == "n"
        group.join()
    assert outcomes == [("b",), ("n",)]
    assert members(onlooker, busy) == {}
