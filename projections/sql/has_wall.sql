-- Whether row-level security holds for the current role on a table, and for every login: the table belongs to a role, as
-- which nobody can log in.
SELECT row_security_active(c.oid) AND NOT o.rolcanlogin
  FROM pg_class c
  JOIN pg_roles o ON o.oid = c.relowner
 WHERE c.oid = %(table)s::text::regclass
