"""Row-level security in plain SQL: two tenants, two users, every role, and attacks."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from support.logins import Logins, Session
from support.scoped_queries import act_as, ask, connected_as
from support.sql_appends import say, share, type_in

SHARED = UUID("00000000-0000-4000-8000-000000000001")
"""An id that both tenants use."""
PRIVATE = UUID("00000000-0000-4000-8000-000000000002")

OF_CONVERSATIONS = (
    "messages", "tasks", "task_artifacts", "conversation_actors", "pending_messages", "statistics_activity",
    "statistics_conversations", "statistics_answers", "statistics_tasks", "statistics_status_periods", "parked",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _world(service: Session, database_url: str) -> None:
    """In each tenant one conversation of Ana's, which Bob may read, under the same id; one more of Bob's in acme."""
    for tenant in ("acme", "globex"):
        assert say(service, tenant, SHARED, "ana", "message.added", {"role": "user", "content": f"in {tenant}"}) == "n"
        assert share(service, tenant, SHARED, "ana", "bob") == "n"
    assert say(service, "acme", PRIVATE, "bob", "message.added", {"role": "user", "content": "for bob"}) == "n"
    with connected_as(database_url) as projector:
        for tenant, conversation in (("acme", SHARED), ("globex", SHARED), ("acme", PRIVATE)):
            _fill(projector, tenant, conversation)


def _fill(projector: Session, tenant: str, conversation: UUID) -> None:
    """A row of the conversation in every read table, with whatever its columns must have."""
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
def of(logins: Logins) -> Callable[..., Session]:
    """Sessions of the service, under a role, for a tenant and a user."""

    def session(role: str, tenant: str = "", user: str = "") -> Session:
        return act_as(ask(logins.session("app"), tenant, user), f"eventstore_{role}")

    return session


def seen(session: Session, table: str) -> set[tuple[str, UUID]]:
    column = "id" if table == "conversations" else "conversation_id"
    text = sql.SQL("SELECT tenant_id, {} FROM {}").format(sql.Identifier(column), sql.Identifier(table))
    return set(session.execute(text).fetchall())


A, G, B = ("acme", SHARED), ("globex", SHARED), ("acme", PRIVATE)


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
def test_every_table_shows_what_belongs_to_who_asks(
    of: Callable[..., Session], tenant: str, user: str, expected: set[tuple[str, UUID]]
) -> None:
    assert seen(of("auditor", tenant, user), "events") == expected
    reader = of("reader", tenant, user)
    for table in ("conversations", *OF_CONVERSATIONS):
        assert seen(reader, table) == expected, table


def test_what_is_no_longer_shared_is_no_longer_seen(of: Callable[..., Session], service: Session) -> None:
    reader = of("reader", "acme", "bob")
    assert seen(reader, "messages") == {A, B}
    share(service, "acme", SHARED, "ana", "bob", None)
    assert seen(reader, "messages") == {B}


@pytest.mark.parametrize("about", [SHARED, PRIVATE, UUID(int=7)])
@pytest.mark.parametrize(("user", "expected"), [("ana", {A}), ("bob", {A, B}), ("eve", set())])
def test_a_query_that_names_its_conversation_sees_no_more_and_no_less(
    of: Callable[..., Session], about: UUID, user: str, expected: set[tuple[str, UUID]]
) -> None:
    for role, tables in (("auditor", ("events",)), ("reader", ("conversations", *OF_CONVERSATIONS))):
        session = of(role, "acme", user)
        session.execute("SELECT set_config('eventstore.conversation_id', %s, false)", (str(about),))
        for table in tables:
            assert seen(session, table) == expected, table


def test_who_asks_is_forgotten_with_the_transaction(of: Callable[..., Session]) -> None:
    reader = of("reader")
    with reader.transaction():
        reader.execute("SELECT set_config('eventstore.tenant', 'acme', true)")
        assert seen(reader, "messages") == {A, B}
    assert seen(reader, "messages") == set()
    with reader.transaction(force_rollback=True):
        reader.execute("SELECT set_config('eventstore.tenant', 'acme', true)")
    assert seen(reader, "messages") == set()


def test_one_prepared_statement_serves_everybody_in_turn(of: Callable[..., Session]) -> None:
    reader = of("reader")
    for plans in ("force_generic_plan", "force_custom_plan"):
        reader.execute(f"SET plan_cache_mode = {plans}")
        in_turn = (("acme", "", {A, B}), ("globex", "", {G}), ("", "", set()), ("acme", "ana", {A}))
        for tenant, user, expected in in_turn * 3:
            ask(reader, tenant, user)
            rows = reader.execute("SELECT tenant_id, conversation_id FROM messages", prepare=True).fetchall()
            assert set(rows) == expected


def test_a_prepared_statement_is_planned_anew_for_another_role(logins: Logins) -> None:
    session = ask(logins.session("app", "projector"), "globex")
    session.execute("SET plan_cache_mode = force_generic_plan")
    session.execute("PREPARE look AS SELECT tenant_id, conversation_id FROM messages")
    for role, expected in (("projector", {A, B, G}), ("reader", {G}), ("projector", {A, B, G}), ("reader", {G})):
        act_as(session, f"eventstore_{role}")
        assert set(session.execute("EXECUTE look").fetchall()) == expected


def test_the_search_shows_nothing_of_others(of: Callable[..., Session]) -> None:
    for tenant in ("", "globex"):
        with pytest.raises(InsufficientPrivilege, match="may not search the tenant"):
            of("reader", tenant).execute("SELECT * FROM search_for('anything', 'acme')")
    assert of("reader", "acme").execute("SELECT * FROM search_for('anything', 'acme')").fetchall() == []


def test_members_are_shown_to_whoever_sees_the_conversation(of: Callable[..., Session]) -> None:
    def told(tenant: str, user: str = "") -> set[str]:
        rows = of("reader", tenant, user).execute("SELECT user_id FROM members_of(%s)", (PRIVATE,)).fetchall()
        return {name for (name,) in rows}

    assert told("acme") == told("acme", "bob") == {"bob"}
    assert told("acme", "ana") == told("globex") == told("globex", "bob") == told("") == set()


def test_the_projector_sees_all_and_cannot_touch_the_log(logins: Logins) -> None:
    projector = act_as(logins.session("projector"), "eventstore_projector")
    assert seen(projector, "events") == seen(projector, "messages") == {A, B, G}
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
def test_policies_are_not_in_the_plans_of_roles_that_see_all_rows(
    database_url: str, superuser_url: str, role: str, statement: str
) -> None:
    plans = []
    with connected_as(database_url, f"eventstore_{role}") as through, psycopg.connect(superuser_url) as without:
        for session in (through, without):
            session.execute("SET enable_seqscan = off")
            plans.append(session.execute(f"EXPLAIN {statement}").fetchall())
    assert plans[0] == plans[1]


def test_a_login_that_merely_inherits_the_projector_s_role_is_none(logins: Logins) -> None:
    login = logins.session("projector", "reader", "app")
    assert seen(login, "messages") == set()
    ask(login, "globex")
    assert seen(login, "messages") == {G}


def test_not_even_the_owner_bypasses_row_level_security_by_inheritance(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as migrator:
        assert seen(migrator, "events") == seen(migrator, "messages") == set()
        assert seen(ask(migrator, "globex"), "events") == {G}
    with connected_as(database_url, "eventstore_owner") as owner:
        assert seen(owner, "events") == {A, B, G}


@pytest.mark.parametrize("column", ["position", "version", "timestamp", "tenant_id", "digest"])
def test_what_the_log_gives_an_event_cannot_be_forged(of: Callable[..., Session], column: str) -> None:
    writer = of("writer", "acme")
    with pytest.raises(InsufficientPrivilege):
        writer.execute(sql.SQL("INSERT INTO events ({}) VALUES (NULL)").format(sql.Identifier(column)))
    with pytest.raises(InsufficientPrivilege):
        writer.execute("SELECT setval('events_position', 1)")


class TestTenantsOfAppends:
    """Each item of an append must be of a tenant for which the session may append."""

    def test_the_service_appends_for_everybody_where_it_asks_for_nobody(self, service: Session) -> None:
        assert [say(service, tenant, PRIVATE) for tenant in ("acme", "globex", "new")] == ["n"] * 3

    def test_once_it_asks_for_one_it_appends_for_that_one(self, service: Session) -> None:
        ask(service, "acme")
        assert say(service, "acme", PRIVATE) == "n"
        with pytest.raises(InsufficientPrivilege, match='may not append for the tenant "globex"'):
            say(service, "globex", PRIVATE)

    def test_a_bound_login_appends_for_its_tenant_whatever_it_sets(self, logins: Logins) -> None:
        for roles in (("writer",), ("writer", "app")):
            bound = logins.session(*roles, tenant="acme")
            for said in ("", "globex", "acme"):
                ask(bound, said)
                act_as(bound, "eventstore_writer")
                assert say(bound, "acme", PRIVATE) == "n"
                with pytest.raises(InsufficientPrivilege):
                    say(bound, "globex", PRIVATE)
                bound.execute("RESET ROLE")

    def test_a_login_that_is_neither_appends_for_nobody(self, logins: Logins) -> None:
        stranger = ask(logins.session("writer"), "acme")
        with pytest.raises(InsufficientPrivilege, match="may not append for any tenant"):
            say(stranger, "acme", PRIVATE)

    def test_by_hand_one_must_have_said_for_whom(self, of: Callable[..., Session]) -> None:
        with pytest.raises(InsufficientPrivilege, match="has not set a tenant"):
            type_in(of("writer"), "acme", PRIVATE)
        with pytest.raises(InsufficientPrivilege, match="may not append for the tenant"):
            type_in(of("writer", "globex"), "acme", PRIVATE)
        type_in(of("writer", "acme"), "acme", PRIVATE)


class TestBoundLogins:
    """A login that is bound to a tenant stands for it, whatever it sets."""

    @pytest.fixture
    def bound(self, logins: Logins) -> Session:
        return logins.session("reader", "auditor", tenant="globex")

    def test_it_sees_its_tenant(self, bound: Session) -> None:
        for said in ("", "acme", "globex"):
            ask(bound, said)
            assert seen(bound, "messages") == seen(bound, "events") == {G}

    def test_it_can_neither_bind_nor_unbind_itself(self, bound: Session) -> None:
        for attempt in (
            "SELECT bind_login(current_user, 'acme')",
            "SELECT unbind_login(current_user)",
            "DELETE FROM bound_logins",
        ):
            with pytest.raises(InsufficientPrivilege):
                bound.execute(attempt.encode())

    def test_it_sees_of_the_bindings_its_own(self, bound: Session, logins: Logins) -> None:
        other = logins.session("reader", tenant="acme")
        for session, tenant in ((bound, "globex"), (other, "acme")):
            assert session.execute("SELECT login, tenant_id FROM bound_logins").fetchall() == [
                (session.info.user, tenant)
            ]

    def test_it_can_become_nobody_else(self, bound: Session) -> None:
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
        ask(bound, "acme")
        assert seen(bound, "events") == {G}

    def test_unbound_it_asks_for_nobody(self, bound: Session, database_url: str) -> None:
        row = bound.execute("SELECT session_user::text").fetchone()
        with psycopg.connect(database_url, autocommit=True) as migrator:
            assert migrator.execute("SELECT unbind_login(%s)", row).fetchone() == (True,)
            assert migrator.execute("SELECT unbind_login(%s)", row).fetchone() == (False,)
        assert seen(ask(bound, "globex"), "messages") == set()

    @pytest.mark.parametrize("roles", [("projector",), ("owner",), ("migrator",)])
    def test_who_sees_everything_cannot_be_bound(self, logins: Logins, roles: tuple[str, ...]) -> None:
        with pytest.raises(psycopg.errors.InvalidGrantOperation, match="sees every tenant"):
            logins.make(*roles, tenant="acme")

    def test_only_a_login_that_exists_can_be_bound(self, database_url: str) -> None:
        with (
            psycopg.connect(database_url) as migrator,
            pytest.raises(psycopg.errors.UndefinedObject, match="login 'nobody' does not exist"),
        ):
            migrator.execute("SELECT bind_login('nobody', 'acme')")


class TestTricks:
    """What somebody tries who may run any SQL under the rights of his login."""

    @pytest.fixture
    def trickster(self, logins: Logins) -> Session:
        return ask(logins.session("reader", "auditor", "writer", tenant="globex"), "acme")

    def test_functions_of_his_own_see_what_he_sees(self, trickster: Session) -> None:
        trickster.execute("""
            CREATE FUNCTION pg_temp.leak(tenant text, content text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
            BEGIN
                RAISE NOTICE '% says %', tenant, content;
                RETURN true;
            END $$
        """)
        told: list[str] = []
        trickster.add_notice_handler(lambda said: told.append(said.message_primary or ""))
        trickster.execute("SELECT FROM messages m WHERE pg_temp.leak(m.tenant_id, m.content)")
        trickster.execute("SELECT FROM events e WHERE pg_temp.leak(e.tenant_id, e.content::text)")
        assert {one.split(" ")[0] for one in told} == {"globex"}

    def test_errors_reveal_nothing_of_hidden_rows(self, trickster: Session) -> None:
        trickster.execute("SELECT FROM events e WHERE 1 / (CASE WHEN e.tenant_id = 'acme' THEN 0 ELSE 1 END) = 1")

    def test_temporary_tables_and_a_search_path_put_nothing_in_front(self, trickster: Session) -> None:
        trickster.execute("CREATE TEMPORARY TABLE bound_logins (login name, tenant_id text)")
        trickster.execute("INSERT INTO bound_logins VALUES (session_user, 'acme')")
        trickster.execute("CREATE TEMPORARY TABLE conversation_members AS SELECT 'acme' AS tenant_id, 'x' AS user_id")
        trickster.execute("CREATE FUNCTION pg_temp.current_tenant() RETURNS text LANGUAGE sql RETURN 'acme'")
        trickster.execute("CREATE FUNCTION pg_temp.is_current_role(name) RETURNS boolean LANGUAGE sql RETURN true")
        trickster.execute("SET search_path = pg_temp, public")
        assert seen(trickster, "messages") == {G}
        assert trickster.execute("SELECT public.current_tenant()").fetchone() == ("globex",)
        trickster.execute("SET search_path = pg_temp, pg_catalog, public")
        with pytest.raises(InsufficientPrivilege):
            say(trickster, "acme", PRIVATE)

    def test_without_row_security_nothing_is_shown(self, trickster: Session) -> None:
        trickster.execute("SET row_security = off")
        with pytest.raises(InsufficientPrivilege, match="row-level security"):
            trickster.execute("SELECT FROM messages")

    def test_views_of_his_own_have_his_rights(self, trickster: Session, logins: Logins) -> None:
        trickster.execute("CREATE TEMPORARY VIEW mine AS SELECT tenant_id, conversation_id FROM messages")
        assert set(trickster.execute("SELECT * FROM mine").fetchall()) == {G}

    def test_a_view_of_the_owner_is_no_door(self, trickster: Session, database_url: str) -> None:
        with connected_as(database_url, "eventstore_owner") as owner:
            owner.execute("CREATE VIEW careless AS SELECT tenant_id, conversation_id FROM messages")
            owner.execute("GRANT SELECT ON careless TO eventstore_reader")
        assert set(trickster.execute("SELECT * FROM careless").fetchall()) == {G}

    def test_statistics_of_the_planner_show_nothing(self, trickster: Session, superuser_url: str) -> None:
        with psycopg.connect(superuser_url, autocommit=True) as superuser:
            superuser.execute("ANALYZE events, messages")
        assert trickster.execute("SELECT * FROM pg_stats WHERE tablename IN ('events', 'messages')").fetchall() == []

    def test_locks_copies_and_plans_are_of_no_use(self, trickster: Session) -> None:
        with trickster.cursor().copy("COPY (SELECT tenant_id FROM messages) TO STDOUT") as copied:
            assert b"".join(bytes(part) for part in copied) == b"globex\n"
        plan = trickster.execute(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT FROM messages"
        ).fetchall()
        assert plan
        with pytest.raises(InsufficientPrivilege):
            trickster.execute("SELECT FROM messages FOR UPDATE")
