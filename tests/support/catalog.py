"""What stands in a database's catalogs, as texts that can be compared."""

from __future__ import annotations

from typing import Any

import psycopg

_EVERYTHING = """
SELECT format('%s %s.%s owner %s acl %s', c.relkind, n.nspname, c.relname, r.rolname, c.relacl)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
 WHERE n.nspname !~ '^(pg_|information_schema)'
UNION ALL
SELECT format('function %s.%s(%s) owner %s acl %s', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid),
              r.rolname, p.proacl)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles r ON r.oid = p.proowner
 WHERE n.nspname !~ '^(pg_|information_schema)'
UNION ALL
SELECT format('trigger %s on %s enabled %s', t.tgname, t.tgrelid::regclass, t.tgenabled)
  FROM pg_trigger t WHERE NOT t.tgisinternal
UNION ALL
SELECT format('schema %s acl %s', n.nspname, coalesce(n.nspacl, acldefault('n', n.nspowner)))
  FROM pg_namespace n WHERE n.nspname !~ '^(pg_|information_schema)'
UNION ALL
SELECT format('database acl %s', coalesce(d.datacl, acldefault('d', d.datdba)))
  FROM pg_database d WHERE d.datname = current_database()
UNION ALL
SELECT format('type %s', t.oid::regtype) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE n.nspname !~ '^(pg_|information_schema)'
"""


def everything(url: str) -> set[str]:
    """All objects, their owners and their grants."""
    with psycopg.connect(url) as connection:
        return {text for (text,) in connection.execute(_EVERYTHING)}


def roles_of_the_store(connection: psycopg.Connection[tuple[Any, ...]]) -> dict[str, tuple[bool, ...]]:
    """The roles that the migrations make, and what they may."""
    rows = connection.execute(
        "SELECT rolname, rolsuper, rolcanlogin, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles "
        "WHERE rolname IN ('eventstore_owner', 'eventstore_app', 'eventstore_projector')"
    )
    return {name: tuple(rights) for name, *rights in rows}
