"""The content of a database's catalogs, as texts that can be compared."""

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
        "WHERE rolname IN ('eventstore_owner', 'eventstore_migrator', 'eventstore_app', 'eventstore_writer',"
        " 'eventstore_reader', 'eventstore_auditor', 'eventstore_projector', 'eventstore_search',"
        " 'eventstore_eraser')"
    )
    return {name: tuple(rights) for name, *rights in rows}


_BELONGINGS = """
WITH tables AS (
    SELECT c.* FROM pg_class c
     WHERE c.relnamespace = 'public'::regnamespace
       AND c.relname IN ('conversations', 'messages', 'tasks', 'task_artifacts')
)
SELECT format('table %s owner %s acl %s options %s security %s %s identity %s comment %s', t.relname,
              t.relowner::regrole,
              (SELECT array_agg(a ORDER BY a::text) FROM unnest(t.relacl) AS a), t.reloptions, t.relrowsecurity,
              t.relforcerowsecurity, t.relreplident, obj_description(t.oid, 'pg_class'))
  FROM tables t
UNION ALL
SELECT format('column %s.%s %s null %s default %s acl %s statistics %s comment %s', t.relname, a.attname,
              format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attacl,
              a.attstattarget, col_description(t.oid, a.attnum))
  FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
UNION ALL
SELECT pg_get_indexdef(i.indexrelid) FROM tables t JOIN pg_index i ON i.indrelid = t.oid
UNION ALL
SELECT format('constraint %s on %s %s', k.conname, t.relname, pg_get_constraintdef(k.oid))
  FROM tables t JOIN pg_constraint k ON k.conrelid = t.oid
UNION ALL
SELECT format('%s enabled %s', pg_get_triggerdef(g.oid), g.tgenabled)
  FROM tables t JOIN pg_trigger g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal
UNION ALL
SELECT format('policy %s %s %s %s %s', y.polname, y.polcmd, y.polroles, pg_get_expr(y.polqual, y.polrelid),
              pg_get_expr(y.polwithcheck, y.polrelid))
  FROM tables t JOIN pg_policy y ON y.polrelid = t.oid
UNION ALL
SELECT pg_get_statisticsobjdef(s.oid) FROM tables t JOIN pg_statistic_ext s ON s.stxrelid = t.oid
UNION ALL
SELECT format('view %s options %s acl %s as %s', c.oid::regclass, c.reloptions, c.relacl, pg_get_viewdef(c.oid))
  FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace
"""


def belongings(connection: psycopg.Connection[tuple[Any, ...]]) -> list[str]:
    """All that belongs to the read tables in the schema public."""
    return sorted(text for (text,) in connection.execute(_BELONGINGS))
