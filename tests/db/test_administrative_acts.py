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
from support.servers import DatabaseServer
from support.sql_appends import append_events, append_group, append_one

pytestmark = pytest.mark.shared_database

NIL = str(UUID(int=0))
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
    "table",
    ["identity_tenants", "identity_erasures", "bound_logins", "legal_holds", "retention_rules", "paused_projections"],
)
def test_the_truncation_of_a_table_is_recorded(database_url: str, table: str) -> None:
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute(f"TRUNCATE {table} CASCADE".encode())
    with open_as(database_url) as projector:
        rows = projector.execute("SELECT tenant_id, act, details ->> 'table' FROM audit_acts").fetchall()
    assert ("eventstore:system", "table_truncated", table) in rows


CHANGES = {
    "UPDATE identity_tenants SET created_at = '2020-01-01' WHERE id = 'acme'":
        ("tenant_changed", {"tenant": "acme", "name": "", "columns": ["created_at"]}),
    "UPDATE identity_users SET kind = 'agent' WHERE tenant_id = 'acme'":
        ("user_changed", {"user": "ana", "kind": "agent", "columns": ["kind"]}),
    "UPDATE identity_keys SET scopes = '{admin}', expires_at = NULL WHERE id = 'one'":
        ("key_changed", {"key": "one", "name": "a key", "scopes": ["admin"], "columns": ["expires_at", "scopes"]}),
    "UPDATE identity_keys SET hash = sha256(hash) WHERE id = 'one'":
        ("key_changed", {"key": "one", "name": "a key", "scopes": ["read"], "expires_at": "2030-01-01T00:00:00+00:00",
                         "columns": ["hash"]}),
    "UPDATE bound_logins SET login = 'other' WHERE tenant_id = 'acme'": ("login_bound", {"login": "other"}),
    "DELETE FROM bound_logins WHERE tenant_id = 'acme'": ("login_unbound", {"login": "somebody"}),
    "UPDATE legal_holds SET user_id = 'bob' WHERE tenant_id = 'acme'": ("hold_changed", {"hold": NIL, "user": "bob"}),
    "DELETE FROM legal_holds WHERE tenant_id = 'acme'": ("hold_released", {"hold": NIL, "user": "ana"}),
    "UPDATE retention_rules SET age = '1 day' WHERE tenant_id = 'acme'":
        ("retention_rule_changed", {"rule": NIL, "age_seconds": 86400, "since": "creation"}),
    "DELETE FROM retention_rules WHERE tenant_id = 'acme'": ("retention_rule_removed", {"rule": NIL}),
    "DELETE FROM paused_projections": ("projection_resumed", {"projection": "messages"}),
    "UPDATE paused_projections SET projection = 'tasks'": ("projection_paused", {"projection": "tasks"}),
    "DELETE FROM identity_erasures": ("table_changed", {"table": "identity_erasures"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def administered(server: DatabaseServer, module_database: str) -> str:
    """A database with a row in each table that an administrator may change."""
    url = server.url(module_database)
    with open_as(url, "eventstore_owner") as owner:
        for statement in (
            "INSERT INTO identity_tenants (id) VALUES ('acme')",
            "INSERT INTO identity_users (tenant_id, id) VALUES ('acme', 'ana')",
            "INSERT INTO identity_keys (id, tenant_id, name, hash, scopes, expires_at)"
            " VALUES ('one', 'acme', 'a key', sha256('one'), '{read}', '2030-01-01 00:00:00Z')",
            "INSERT INTO bound_logins (login, tenant_id) VALUES ('somebody', 'acme')",
            "INSERT INTO identity_erasures (tenant_id, salt, hash) VALUES ('acme', '', sha256(''))",
            "INSERT INTO legal_holds (tenant_id, id, user_id, reason, placed_by)"
            f" VALUES ('acme', '{NIL}', 'ana', 'r', 'x')",
            "INSERT INTO retention_rules (tenant_id, id, age, since, reason, added_by)"
            f" VALUES ('acme', '{NIL}', '30 days', 'creation', '', 'x')",
            "INSERT INTO paused_projections (projection) VALUES ('messages')",
        ):
            owner.execute(statement.encode())
    return url


@pytest.mark.parametrize(("statement", "expected"), CHANGES.items(), ids=CHANGES)
def test_a_change_by_the_owner_in_plain_sql_is_recorded(
    administered: str, statement: str, expected: tuple[str, dict[str, Any]]
) -> None:
    with open_as(administered, "eventstore_owner") as owner, owner.transaction(force_rollback=True):
        owner.execute("SET LOCAL timezone = 'UTC'")
        owner.execute(statement.encode())
        owner.execute("SET LOCAL ROLE eventstore_projector")
        acts = owner.execute("SELECT act, details, actor FROM audit_acts ORDER BY position DESC LIMIT 1").fetchall()
        assert acts == [(*expected, f"login:{owner.info.user}")]


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
