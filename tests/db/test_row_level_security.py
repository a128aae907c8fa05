"""Attacks on row-level security by plain SQL: other tenants, forged values, role changes, functions and views."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from support.catalog import roles_of_the_store
from support.logins import Logins, Session
from support.scoped_queries import open_as, set_role, set_scope
from support.servers import DatabaseServer
from support.sql_appends import append_events, append_one, share

pytestmark = pytest.mark.shared_database

SHARED = UUID("00000000-0000-4000-8000-000000000001")
"""An id that both tenants use."""
PRIVATE = UUID("00000000-0000-4000-8000-000000000002")
INITECH, UMBRELLA = "initech", "umbrella"
"""Tenants to which tests append."""

OF_CONVERSATIONS = (
    "messages", "tasks", "task_artifacts", "conversation_actors", "pending_messages", "statistics_activity",
    "statistics_conversations", "statistics_answers", "statistics_tasks", "statistics_status_periods", "parked",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _conversations(server: DatabaseServer, module_database: str) -> None:
    """Create a conversation of Ana in each tenant with the same id, which Bob may read; in acme also one of Bob."""
    url = server.url(module_database)
    with open_as(url, "eventstore_owner") as owner, open_as(url) as projector:
        if not roles_of_the_store(owner):
            pytest.skip("the login may not create roles, so there is no row-level security")
        for tenant in ("acme", "globex"):
            message = {"role": "user", "content": f"in {tenant}"}
            assert append_one(set_scope(owner, tenant), tenant, SHARED, "ana", "message.added", message) == "n"
            assert share(owner, tenant, SHARED, "ana", "bob") == "n"
        message = {"role": "user", "content": "for bob"}
        assert append_one(set_scope(owner, "acme"), "acme", PRIVATE, "bob", "message.added", message) == "n"
        for tenant, conversation in (("acme", SHARED), ("globex", SHARED), ("acme", PRIVATE)):
            _fill(projector, tenant, conversation)


def _fill(projector: Session, tenant: str, conversation: UUID) -> None:
    """Insert a row of the conversation into every read table, with a value for each column that must have one."""
    for table in ("conversations", "search_documents", "search_conversations", *OF_CONVERSATIONS):
        columns = projector.execute(
            "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a"
            " WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND a.attnotnull AND NOT a.atthasdef",
            (table,),
        ).fetchall()
        made = {"uuid": str(conversation), "timestamp with time zone": "2026-01-01Z", "jsonb": "[]", "boolean": "false"}
        made |= {"tsvector": "", "integer": "1", "bigint": "1", "smallint": "1"}
        values = {name: tenant if name == "tenant_id" else made.get(kind, "live") for name, kind in columns}
        projector.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(map(sql.Literal, values.values())),
            )
        )


@pytest.fixture
def session_as(logins: Logins) -> Callable[..., Session]:
    """Sessions of the service under a role, for a tenant and a user."""

    def session(role: str, tenant: str = "", user: str = "") -> Session:
        return set_role(set_scope(logins.session("app"), tenant, user), f"eventstore_{role}")

    return session


def seen(session: Session, table: str) -> set[tuple[str, UUID]]:
    """The conversations whose rows a session sees, apart from that of administrative acts: a login was bound."""
    column = sql.Identifier("id" if table == "conversations" else "conversation_id")
    text = sql.SQL("SELECT tenant_id, {0} FROM {1} WHERE {0} <> administration_id()").format(
        column, sql.Identifier(table)
    )
    return set(session.execute(text).fetchall())


A, G, B = ("acme", SHARED), ("globex", SHARED), ("acme", PRIVATE)


@pytest.mark.parametrize("conversation", [None, SHARED, PRIVATE, UUID(int=7)])
@pytest.mark.parametrize(
    ("tenant", "user", "expected"),
    [
        ("", "", set()),
        ("", "ana", set()),
        ("nobody", "", set()),
        ("acme", "", {A, B}),
        ("globex", "", {G}),
        ("acme", "ana", {A}),
        ("acme", "bob", {A, B}),
        ("globex", "bob", {G}),
        ("acme", "eve", set()),
        ("ACME", "", set()),
        ("acme' OR true --", "", set()),
    ],
)
def test_every_table_shows_the_rows_of_the_current_scope_whichever_conversation_is_named(
    session_as: Callable[..., Session],
    tenant: str,
    user: str,
    expected: set[tuple[str, UUID]],
    conversation: UUID | None,
) -> None:
    for role, tables in (("auditor", ("events",)), ("reader", ("conversations", *OF_CONVERSATIONS))):
        session = session_as(role, tenant, user)
        if conversation is not None:
            session.execute("SELECT set_config('eventstore.conversation_id', %s, false)", (str(conversation),))
        for table in tables:
            assert seen(session, table) == expected, table


def test_a_scope_ends_with_its_transaction(session_as: Callable[..., Session]) -> None:
    reader = session_as("reader")
    with reader.transaction():
        reader.execute("SELECT set_config('eventstore.tenant', 'acme', true)")
        assert seen(reader, "messages") == {A, B}
    assert seen(reader, "messages") == set()
    with reader.transaction(force_rollback=True):
        reader.execute("SELECT set_config('eventstore.tenant', 'acme', true)")
    assert seen(reader, "messages") == set()


def test_a_prepared_statement_shows_the_rows_of_the_current_scope(session_as: Callable[..., Session]) -> None:
    reader = session_as("reader")
    for plans in ("force_generic_plan", "force_custom_plan"):
        reader.execute(f"SET plan_cache_mode = {plans}")
        in_turn = (("acme", "", {A, B}), ("globex", "", {G}), ("", "", set()), ("acme", "ana", {A}))
        for tenant, user, expected in in_turn * 3:
            set_scope(reader, tenant, user)
            rows = reader.execute("SELECT tenant_id, conversation_id FROM messages", prepare=True).fetchall()
            assert set(rows) == expected


def test_a_prepared_statement_is_planned_again_for_another_role(logins: Logins) -> None:
    session = set_scope(logins.session("app", "projector"), "globex")
    session.execute("SET plan_cache_mode = force_generic_plan")
    session.execute("PREPARE look AS SELECT tenant_id, conversation_id FROM messages")
    for role, expected in (("projector", {A, B, G}), ("reader", {G}), ("projector", {A, B, G}), ("reader", {G})):
        set_role(session, f"eventstore_{role}")
        assert set(session.execute("EXECUTE look").fetchall()) == expected


def test_a_search_of_another_tenant_is_refused(session_as: Callable[..., Session]) -> None:
    for tenant in ("", "globex"):
        with pytest.raises(InsufficientPrivilege, match="may not search the tenant"):
            session_as("reader", tenant).execute("SELECT * FROM search_for('anything', 'acme')")
    assert session_as("reader", "acme").execute("SELECT * FROM search_for('anything', 'acme')").fetchall() == []


def test_the_projector_reads_every_tenant_and_cannot_change_the_log(logins: Logins) -> None:
    projector = set_role(logins.session("projector"), "eventstore_projector")
    assert seen(projector, "messages") == {A, B, G}
    assert seen(projector, "events") >= {A, B, G}
    for change in (
        "INSERT INTO events SELECT * FROM events",
        "UPDATE events SET actor = ''",
        "DELETE FROM events",
        "TRUNCATE events",
        "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY all_of_it ON events USING (true)",
        "DROP POLICY open_to_caller ON messages",
        "SELECT nextval('events_position')",
        "INSERT INTO conversation_members VALUES ('acme', gen_random_uuid(), 'eve', 'own')",
        "SELECT * FROM conversation_members",
        "INSERT INTO bound_logins VALUES ('postgres', 'acme')",
        "SELECT append_one('acme', gen_random_uuid(), -2, gen_random_uuid(), 'x', 1::smallint, '', '1', '{}', 0, '')",
    ):
        with pytest.raises(InsufficientPrivilege):
            projector.execute(change.encode())


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("projector", "SELECT content FROM events WHERE position BETWEEN 1 AND 5"),
        ("projector", "UPDATE messages SET content = '' WHERE conversation_id = gen_random_uuid()"),
        ("projector", "INSERT INTO messages SELECT * FROM messages ON CONFLICT DO NOTHING"),
        ("owner", "SELECT version FROM events WHERE (tenant_id, conversation_id) = ('a', gen_random_uuid())"),
        ("search", "SELECT FROM search_documents WHERE words @@ 'word'"),
    ],
)
def test_roles_that_see_everything_have_no_policy_in_their_plans(
    database_url: str, superuser_url: str, role: str, statement: str
) -> None:
    plans = []
    with open_as(database_url, f"eventstore_{role}") as through, psycopg.connect(superuser_url) as without:
        for session in (through, without):
            session.execute("SET enable_seqscan = off")
            plans.append(session.execute(f"EXPLAIN {statement}").fetchall())
    assert plans[0] == plans[1]


def test_a_login_that_inherits_the_projectors_role_without_setting_it_is_isolated(logins: Logins) -> None:
    login = logins.session("projector", "reader", "app")
    assert seen(login, "messages") == set()
    set_scope(login, "globex")
    assert seen(login, "messages") == {G}


def test_a_login_that_inherits_the_owners_role_without_setting_it_is_isolated(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as migrator:
        for table in ("events", "messages"):
            with pytest.raises(InsufficientPrivilege, match="which has no tenant"):
                seen(migrator, table)
        assert seen(set_scope(migrator, "globex"), "events") == {G}
    with open_as(database_url, "eventstore_owner") as owner:
        assert seen(owner, "events") >= {A, B, G}


@pytest.mark.parametrize("column", ["position", "version", "timestamp", "tenant_id", "digest"])
def test_a_writer_cannot_set_the_columns_that_the_log_assigns(session_as: Callable[..., Session], column: str) -> None:
    writer = session_as("writer", "acme")
    with pytest.raises(InsufficientPrivilege):
        writer.execute(sql.SQL("INSERT INTO events ({}) VALUES (NULL)").format(sql.Identifier(column)))
    with pytest.raises(InsufficientPrivilege):
        writer.execute("SELECT setval('events_position', 1)")


class TestTenantsOfAppends:
    """Each item of an append must be of a tenant for which the session may append."""

    def test_the_service_appends_for_any_tenant_if_it_has_set_none(self, service: Session) -> None:
        assert [append_one(service, tenant, uuid4()) for tenant in (INITECH, UMBRELLA, "new")] == ["n"] * 3

    def test_the_service_appends_only_for_the_tenant_that_it_has_set(self, service: Session) -> None:
        set_scope(service, INITECH)
        assert append_one(service, INITECH, uuid4()) == "n"
        with pytest.raises(InsufficientPrivilege, match='may not append for the tenant "umbrella"'):
            append_one(service, UMBRELLA, uuid4())

    def test_a_bound_login_appends_for_its_tenant_whatever_it_sets(self, logins: Logins) -> None:
        for roles in (("writer",), ("writer", "app")):
            bound = logins.session(*roles, tenant=INITECH)
            for tenant in ("", UMBRELLA, INITECH):
                set_scope(bound, tenant)
                set_role(bound, "eventstore_writer")
                assert append_one(bound, INITECH, uuid4()) == "n"
                with pytest.raises(InsufficientPrivilege):
                    append_one(bound, UMBRELLA, uuid4())
                bound.execute("RESET ROLE")

    def test_a_login_that_is_neither_bound_nor_the_service_appends_for_no_tenant(self, logins: Logins) -> None:
        stranger = set_scope(logins.session("writer"), INITECH)
        with pytest.raises(InsufficientPrivilege, match="may not append for any tenant"):
            append_one(stranger, INITECH, uuid4())

    def test_append_events_needs_a_tenant_that_was_set(self, session_as: Callable[..., Session]) -> None:
        with pytest.raises(InsufficientPrivilege, match="has not set a tenant"):
            append_events(session_as("writer"), INITECH, uuid4())
        with pytest.raises(InsufficientPrivilege, match="may not append for the tenant"):
            append_events(session_as("writer", UMBRELLA), INITECH, uuid4())
        append_events(session_as("writer", INITECH), INITECH, uuid4())


class TestBoundLogins:
    """A login that is bound to a tenant has that tenant, whatever it sets."""

    @pytest.fixture
    def bound(self, logins: Logins) -> Session:
        return logins.session("reader", "auditor", tenant="globex")

    def test_it_sees_its_tenant_whatever_it_sets(self, bound: Session) -> None:
        for tenant in ("", "acme", "globex"):
            set_scope(bound, tenant)
            assert seen(bound, "messages") == seen(bound, "events") == {G}

    def test_it_cannot_change_its_binding(self, bound: Session) -> None:
        for attempt in (
            "SELECT bind_login(current_user, 'acme')",
            "SELECT unbind_login(current_user)",
            "DELETE FROM bound_logins",
        ):
            with pytest.raises(InsufficientPrivilege):
                bound.execute(attempt.encode())

    def test_it_sees_only_its_own_binding(self, bound: Session, logins: Logins) -> None:
        other = logins.session("reader", tenant="acme")
        for session, tenant in ((bound, "globex"), (other, "acme")):
            assert session.execute("SELECT login, tenant_id FROM bound_logins").fetchall() == [
                (session.info.user, tenant)
            ]

    def test_it_cannot_take_a_role_that_it_is_not_a_member_of(self, bound: Session) -> None:
        for attempt in (
            "SET ROLE eventstore_projector",
            "SET ROLE eventstore_owner",
            "SET ROLE eventstore_app",
            "SET SESSION AUTHORIZATION eventstore_owner",
            "SET SESSION AUTHORIZATION eventstore",
            "GRANT eventstore_app TO CURRENT_USER",
        ):
            with pytest.raises((InsufficientPrivilege, psycopg.errors.InvalidParameterValue)):
                bound.execute(attempt.encode())
        bound.execute("SET ROLE eventstore_auditor")
        set_scope(bound, "acme")
        assert seen(bound, "events") == {G}

    def test_an_unbound_login_sees_nothing(self, bound: Session, database_url: str) -> None:
        row = bound.execute("SELECT session_user::text").fetchone()
        with psycopg.connect(database_url, autocommit=True) as migrator:
            assert migrator.execute("SELECT unbind_login(%s)", row).fetchone() == (True,)
            assert migrator.execute("SELECT unbind_login(%s)", row).fetchone() == (False,)
        assert seen(set_scope(bound, "globex"), "messages") == set()

    @pytest.mark.parametrize("roles", [("projector",), ("owner",), ("migrator",)])
    def test_a_role_that_sees_every_tenant_cannot_be_bound(self, logins: Logins, roles: tuple[str, ...]) -> None:
        with pytest.raises(psycopg.errors.InvalidGrantOperation, match="sees every tenant"):
            logins.make(*roles, tenant="acme")

    def test_a_login_that_does_not_exist_cannot_be_bound(self, database_url: str) -> None:
        with (
            psycopg.connect(database_url) as migrator,
            pytest.raises(psycopg.errors.UndefinedObject, match="login 'nobody' does not exist"),
        ):
            migrator.execute("SELECT bind_login('nobody', 'acme')")


class TestAttacksBySql:
    """Attacks by a login that may run any SQL under its own rights."""

    @pytest.fixture
    def attacker(self, logins: Logins) -> Session:
        return set_scope(logins.session("reader", "auditor", "writer", tenant="globex"), "acme")

    def test_functions_of_the_attacker_see_only_its_tenant(self, attacker: Session) -> None:
        attacker.execute("""
            CREATE FUNCTION pg_temp.leak(tenant text, content text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
            BEGIN
                RAISE NOTICE '% says %', tenant, content;
                RETURN true;
            END $$
        """)
        notices: list[str] = []
        attacker.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        attacker.execute("SELECT FROM messages m WHERE pg_temp.leak(m.tenant_id, m.content)")
        attacker.execute("SELECT FROM events e WHERE pg_temp.leak(e.tenant_id, e.content::text)")
        assert {notice.split(" ")[0] for notice in notices} == {"globex"}

    def test_errors_disclose_no_hidden_row(self, attacker: Session) -> None:
        attacker.execute("SELECT FROM events e WHERE 1 / (CASE WHEN e.tenant_id = 'acme' THEN 0 ELSE 1 END) = 1")

    def test_temporary_objects_and_a_search_path_replace_no_object_of_the_schema(self, attacker: Session) -> None:
        attacker.execute("CREATE TEMPORARY TABLE bound_logins (login name, tenant_id text)")
        attacker.execute("INSERT INTO bound_logins VALUES (session_user, 'acme')")
        attacker.execute("CREATE TEMPORARY TABLE conversation_members AS SELECT 'acme' AS tenant_id, 'x' AS user_id")
        attacker.execute("CREATE FUNCTION pg_temp.current_tenant() RETURNS text LANGUAGE sql RETURN 'acme'")
        attacker.execute("CREATE FUNCTION pg_temp.is_current_role(name) RETURNS boolean LANGUAGE sql RETURN true")
        attacker.execute("SET search_path = pg_temp, public")
        assert seen(attacker, "messages") == {G}
        assert attacker.execute("SELECT public.current_tenant()").fetchone() == ("globex",)
        attacker.execute("SET search_path = pg_temp, pg_catalog, public")
        with pytest.raises(InsufficientPrivilege):
            append_one(attacker, "acme", PRIVATE)

    def test_with_row_security_off_a_query_fails(self, attacker: Session) -> None:
        attacker.execute("SET row_security = off")
        with pytest.raises(InsufficientPrivilege, match="row-level security"):
            attacker.execute("SELECT FROM messages")

    def test_views_of_the_attacker_have_its_rights(self, attacker: Session) -> None:
        attacker.execute("CREATE TEMPORARY VIEW mine AS SELECT tenant_id, conversation_id FROM messages")
        assert set(attacker.execute("SELECT * FROM mine").fetchall()) == {G}

    def test_a_view_of_the_owner_is_isolated_too(self, attacker: Session, database_url: str) -> None:
        with open_as(database_url, "eventstore_owner") as owner:
            owner.execute("CREATE VIEW careless AS SELECT tenant_id, conversation_id FROM messages")
            owner.execute("GRANT SELECT ON careless TO eventstore_reader")
            assert set(attacker.execute("SELECT * FROM careless").fetchall()) == {G}
            owner.execute("DROP VIEW careless")

    def test_statistics_of_the_planner_are_hidden(self, attacker: Session, superuser_url: str) -> None:
        with psycopg.connect(superuser_url, autocommit=True) as superuser:
            superuser.execute("ANALYZE events, messages")
        assert attacker.execute("SELECT * FROM pg_stats WHERE tablename IN ('events', 'messages')").fetchall() == []

    def test_copies_plans_and_row_locks_disclose_no_hidden_row(self, attacker: Session) -> None:
        with attacker.cursor().copy("COPY (SELECT tenant_id FROM messages) TO STDOUT") as copied:
            assert b"".join(bytes(part) for part in copied) == b"globex\n"
        plan = attacker.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT FROM messages").fetchall()
        assert plan
        with pytest.raises(InsufficientPrivilege):
            attacker.execute("SELECT FROM messages FOR UPDATE")
