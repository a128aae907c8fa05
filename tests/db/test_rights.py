"""The rights of each role on each object, as the documentation says and as the catalogs have them."""

from __future__ import annotations

import psycopg
import pytest
from support.catalog import roles_of_the_store
from support.rights import OTHERS, ROLES, documented, granted

pytestmark = pytest.mark.shared_database


@pytest.fixture(autouse=True)
def _roles(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        if not roles_of_the_store(connection):
            pytest.skip("the login may not create roles, so there are none")


def test_every_role_has_on_every_object_the_rights_of_the_table(database_url: str) -> None:
    expected, for_all = documented()
    with psycopg.connect(database_url) as connection:
        found, owners = granted(connection)
    for name in for_all:
        for role in OTHERS:
            assert ("Functions", name, role) not in expected, f"{name} stands twice"
            expected["Functions", name, role] = {"EXECUTE"}
    for (kind, name), owner in owners.items():
        if owner == "eventstore_owner":  # of which a migrator is a member
            assert expected.pop((kind, name, "migrator")) <= found.pop((kind, name, "migrator"))
    assert {key[:2] for key in expected} == {key[:2] for key in found}, (
        "objects without a line, or lines without an object"
    )
    wrong = {key: (rights, found[key]) for key, rights in expected.items() if rights != found[key]}
    assert wrong == {}, "expected rights, and those found"


def test_the_owner_owns_everything_but_the_search_and_the_bookkeeping(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        _, owners = granted(connection)
        row = connection.execute("SELECT session_user::text").fetchone()
    assert row is not None
    others = {name: owner for (_, name), owner in owners.items() if owner not in ("", "eventstore_owner")}
    assert others == {
        "search_for": "eventstore_search",
        **dict.fromkeys(
            ("eventstore_migrations", "eventstore_set_owner", "eventstore_grant", "eventstore_role"), row[0]
        ),
    }


def test_no_right_is_grantable_and_public_has_none_on_tables(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        passed = connection.execute(
            "SELECT c.relname, g.grantee, g.privilege_type FROM pg_class c, aclexplode(c.relacl) AS g"
            " WHERE c.relnamespace = 'public'::regnamespace"
            "   AND (g.is_grantable AND g.grantee <> c.relowner OR g.grantee = 0)"
        ).fetchall()
    assert passed == []


def test_the_service_may_become_writer_reader_or_auditor_and_inherits_nothing(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        members = connection.execute(
            "SELECT a.roleid::regrole::text, a.member::regrole::text FROM pg_auth_members a"
            " WHERE a.roleid::regrole::text LIKE 'eventstore\\_%' AND a.member::regrole::text LIKE 'eventstore\\_%'"
        ).fetchall()
        assert set(members) == {
            ("eventstore_owner", "eventstore_migrator"),
            ("eventstore_writer", "eventstore_app"),
            ("eventstore_reader", "eventstore_app"),
            ("eventstore_auditor", "eventstore_app"),
        }
        for role in ("writer", "reader", "auditor"):
            usage = "SELECT pg_has_role('eventstore_app', %s, 'USAGE')"
            assert connection.execute(usage, (f"eventstore_{role}",)).fetchone() == (False,)


def test_every_table_with_a_tenant_has_row_level_security(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity,"
            "       ARRAY(SELECT p.polname::text FROM pg_policy p"
            "              WHERE p.polrelid = c.oid AND p.polname NOT IN ('open_to_search', 'open_to_eraser')"
            "              ORDER BY p.polname)"
            "  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
            " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'bound_logins'"
        ).fetchall()
        views = connection.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace"
            "   AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false)"
        ).fetchall()
    assert len(tables) >= 15
    policies = ["open_to_caller", "open_to_owner", "open_to_projector", "require_tenant"]
    assert {name for name, *found in tables if found != [True, policies]} == {
        # Which the service alone has rights to, for all tenants.
        "identity_users", "identity_keys", "identity_erasures", "idempotency_keys", "legal_holds", "retention_rules",
        # Which no role has rights to.
        "pending_receipts",
    }  # fmt: skip
    assert views == []


def test_no_role_may_log_in_or_has_an_attribute(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        roles = roles_of_the_store(connection)
    assert set(roles) == {f"eventstore_{role}" for role in ROLES}
    assert set(roles.values()) == {(False,) * 5}


def test_functions_with_the_rights_of_their_owner_pin_their_search_path(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT p.oid::regprocedure::text, p.proconfig FROM pg_proc p "
            "WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace"
        ).fetchall()
    assert len(rows) > 5
    for function, settings in rows:
        paths = [setting for setting in settings or () if setting.startswith("search_path=")]
        assert paths, function
        # Temporary objects come last, so that none replaces an object of the schema.
        assert paths[0].replace('"', "").split("=")[1].split(", ") == ["public", "pg_temp"], (function, paths)
