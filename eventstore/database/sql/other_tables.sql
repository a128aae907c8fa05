-- Tables of projections that the migrations do not make: read tables that a rebuild replaced, and those of users' own
-- projections.
SELECT format('%%I.%%I', n.nspname, c.relname), c.relname::text, t.conversation_column::text, n.nspname = current_schema()
  FROM projected_tables() AS t
  JOIN pg_class c ON c.oid = t.projected
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE (n.nspname <> current_schema() OR c.relname <> ALL (%(ours)s))
   AND pg_get_userbyid(c.relowner) <> 'eventstore_owner'
 ORDER BY 1
