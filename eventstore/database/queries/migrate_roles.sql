-- name: owner_of_log
-- The login that owns the log; the current login if a role owns it.
SELECT CASE WHEN o.rolcanlogin THEN o.rolname ELSE session_user END
  FROM pg_class c
  JOIN pg_roles o ON o.oid = c.relowner
 WHERE c.oid = 'events'::regclass

-- name: other_tables
-- Tables of projections that the migrations do not create: read tables that a rebuild has replaced, and those of custom
-- projections.
SELECT format('%%I.%%I', n.nspname, c.relname), c.relname::text, t.conversation_column::text, n.nspname = current_schema()
  FROM projected_tables() AS t
  JOIN pg_class c ON c.oid = t.projected
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE (n.nspname <> current_schema() OR c.relname <> ALL (%(ours)s))
   AND pg_get_userbyid(c.relowner) <> 'eventstore_owner'
 ORDER BY 1
