-- The login to which the log belongs; the current login if it belongs to a role.
SELECT CASE WHEN o.rolcanlogin THEN o.rolname ELSE session_user END
  FROM pg_class c
  JOIN pg_roles o ON o.oid = c.relowner
 WHERE c.oid = 'events'::regclass
