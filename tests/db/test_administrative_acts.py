"""Administrative acts in SQL: recorded with the act or not at all, and written and read by nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from support.logins import Logins, Session
from support.scoped_queries import open_as, open_scoped, set_role, set_scope
from support.sql_appends import append_events, append_group, append_one

pytestmark = pytest.mark.shared_database

ADMINISTRATION = UUID("704a23d0-25df-52d6-b826-5b26f57f7d51")


@pytest.fixture
def service(logins: Logins, own_tenant: str) -> Session:
    """A session of the service, for the test's tenant, which exists."""
    session = set_scope(logins.session("app"), own_tenant)
    session.execute("INSERT INTO identity_tenants (id) VALUES (%s)", (own_tenant,))
    return session


@pytest.fixture
def acts(database_url: str, own_tenant: str) -> Callable[[], list[tuple[Any, ...]]]:
    """Return the acts of the test's tenant: act, actor and details, without the first one, which added the tenant."""

    def read() -> list[tuple[Any, ...]]:
        with open_as(database_url) as projector:
            return projector.execute(
                "SELECT act, actor, details FROM audit_acts WHERE tenant_id = %s ORDER BY position OFFSET 1",
                (own_tenant,),
            ).fetchall()

    return read


def test_a_change_in_plain_sql_is_recorded_with_its_login(
    service: Session, own_tenant: str, acts: Callable[[], Any]
) -> None:
    login = f"login:{service.info.user}"
    service.execute("INSERT INTO identity_users (tenant_id, id, name) VALUES (%s, 'ana', 'Ana Silva')", (own_tenant,))
    service.execute("UPDATE identity_users SET disabled_at = now() WHERE tenant_id = %s", (own_tenant,))
    service.execute("UPDATE identity_users SET disabled_at = NULL WHERE tenant_id = %s", (own_tenant,))
    service.execute("UPDATE identity_tenants SET suspended_at = now() WHERE id = %s", (own_tenant,))
    ana = {"user": "ana", "kind": "user"}
    assert acts() == [
        ("user_added", login, ana),
        ("user_disabled", login, ana),
        ("user_enabled", login, ana),
        ("tenant_suspended", login, {"tenant": own_tenant, "name": ""}),
    ]


def test_the_use_of_a_key_is_not_an_act_and_its_hash_is_not_recorded(
    service: Session, own_tenant: str, acts: Callable[[], Any]
) -> None:
    key = own_tenant[-12:]
    service.execute(
        "INSERT INTO identity_keys (id, tenant_id, name, hash, scopes) VALUES (%s, %s, 'a key', %s, '{read}')",
        (key, own_tenant, own_tenant.encode().ljust(32)),
    )
    service.execute("UPDATE identity_keys SET last_used_at = now() WHERE id = %s", (key,))
    service.execute("UPDATE identity_keys SET revoked_at = now() WHERE id = %s", (key,))
    service.execute("UPDATE identity_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s", (key,))
    recorded = acts()
    assert [act for act, _, _ in recorded] == ["key_added", "key_revoked"]
    assert recorded[0][2] == {"key": key, "name": "a key", "scopes": ["read"]}


@pytest.mark.own_database
@pytest.mark.parametrize(
    "table", ["identity_tenants", "identity_erasures", "bound_logins", "legal_holds", "retention_rules"]
)
def test_the_truncation_of_a_table_is_recorded(database_url: str, table: str) -> None:
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute(f"TRUNCATE {table} CASCADE".encode())
    with open_as(database_url) as projector:
        rows = projector.execute("SELECT tenant_id, act, details ->> 'table' FROM audit_acts").fetchall()
    assert ("eventstore:system", "table_truncated", table) in rows


def test_an_act_and_its_record_are_rolled_back_together(
    service: Session, own_tenant: str, acts: Callable[[], Any]
) -> None:
    with service.transaction(force_rollback=True):
        service.execute("INSERT INTO identity_users (tenant_id, id) VALUES (%s, 'ana')", (own_tenant,))
    assert acts() == []


def test_who_acts_through_what_and_why_is_set_for_a_transaction(service: Session, own_tenant: str) -> None:
    with service.transaction():
        service.execute(
            "SELECT set_config('eventstore.actor', 'root', true), set_config('eventstore.via', 'cli', true),"
            " set_config('eventstore.reason', 'she left', true)"
        )
        service.execute("SELECT record_administrative_act(%s, 'user_left', '{\"user\": \"ana\"}')", (own_tenant,))
    service.execute("SELECT record_administrative_act(%s, 'user_left', '{}', 'no reason', 'boss')", (own_tenant,))
    rows = (
        set_role(service, "eventstore_auditor")
        .execute("SELECT actor, via, login, reason FROM audit_acts WHERE act = 'user_left' ORDER BY position")
        .fetchall()
    )
    login = service.info.user
    assert rows == [("root", "cli", login, "she left"), ("boss", None, login, "no reason")]


@pytest.mark.parametrize("act", [None, "", "Key made", "a'b"])
def test_an_act_needs_a_name_of_lower_case(service: Session, own_tenant: str, act: str | None) -> None:
    with pytest.raises(psycopg.DatabaseError, match="no valid name"):
        service.execute("SELECT record_administrative_act(%s, %s)", (own_tenant, act))


def test_a_record_has_a_digest_and_follows_the_one_before(service: Session, own_tenant: str, database_url: str) -> None:
    service.execute("SELECT record_administrative_act(%s, 'something_done', '{\"z\": 1, \"a\": 2}')", (own_tenant,))
    with open_as(database_url) as projector:
        rows = projector.execute(
            "SELECT e.version, e.digest = event_digest(e.salt, e.position, e.timestamp, e.version, e.schema_version,"
            " e.conversation_id, e.id, e.tenant_id, e.event_type, e.actor, e.content, e.metadata)"
            " FROM events e WHERE e.tenant_id = %s ORDER BY e.position",
            (own_tenant,),
        ).fetchall()
    assert rows == [(1, True), (2, True)]


def test_no_append_function_writes_to_the_conversation_of_acts(logins: Logins, own_tenant: str) -> None:
    writer = set_role(set_scope(logins.session("app"), own_tenant), "eventstore_writer")
    for user in ("", "ana"):
        assert append_one(writer, own_tenant, ADMINISTRATION, user) == "r"
        assert append_group(writer, (own_tenant, ADMINISTRATION, user, "noted", None)) == ["r"]
    with pytest.raises(psycopg.DatabaseError, match="that of administrative acts"):
        append_events(writer, own_tenant, ADMINISTRATION)
    bound = logins.session("writer", tenant=own_tenant)
    assert append_one(bound, own_tenant, ADMINISTRATION) == "r"


def test_writers_readers_and_auditors_may_not_record(logins: Logins, own_tenant: str) -> None:
    for role in ("writer", "reader", "auditor"):
        session = logins.session(role, tenant=own_tenant)
        with pytest.raises(InsufficientPrivilege):
            session.execute("SELECT record_administrative_act(%s, 'something_done')", (own_tenant,))


def test_a_bound_login_of_the_service_records_acts_of_its_tenant_alone(
    service: Session, logins: Logins, own_tenant: str
) -> None:
    bound = logins.session("app", tenant=own_tenant)
    bound.execute("SELECT record_administrative_act(%s, 'something_done')", (own_tenant,))
    for other in ("acme", None):
        with pytest.raises(InsufficientPrivilege, match="may not append for the tenant"):
            bound.execute("SELECT record_administrative_act(%s, 'something_done')", (other,))


def test_an_auditor_sees_the_acts_of_their_tenant_and_a_user_sees_none(
    service: Session, logins: Logins, own_tenant: str, database_url: str
) -> None:
    auditor = logins.session("auditor", tenant=own_tenant)
    everything = "SELECT DISTINCT tenant_id, act FROM audit_acts ORDER BY act"
    assert auditor.execute(everything).fetchall() == [(own_tenant, "login_bound"), (own_tenant, "tenant_added")]
    stranger = logins.session("auditor", tenant=f"other than {own_tenant}")
    assert {tenant for tenant, _ in stranger.execute(everything)} == {f"other than {own_tenant}"}
    with open_scoped(database_url, own_tenant, "ana") as user:
        set_role(user, "eventstore_auditor")
        assert user.execute("SELECT count(*) FROM audit_trail").fetchone() == (0,)
    reader = logins.session("reader", tenant=own_tenant)
    for view in ("audit_trail", "audit_acts"):
        with pytest.raises(InsufficientPrivilege):
            reader.execute(f"SELECT FROM {view}".encode())


def test_a_binding_is_recorded_for_the_tenants_that_gain_and_lose_the_login(
    logins: Logins, service: Session, own_tenant: str, database_url: str, acts: Callable[[], Any]
) -> None:
    login = logins.make("reader", tenant=own_tenant)
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute("SELECT bind_login(%s, %s)", (login, own_tenant))
        owner.execute("SELECT bind_login(%s, %s)", (login, f"other than {own_tenant}"))
        owner.execute("SELECT unbind_login(%s)", (login,))
    assert [(act, details) for act, _, details in acts()] == [
        ("login_bound", {"login": login}),
        ("login_unbound", {"login": login}),
    ]
