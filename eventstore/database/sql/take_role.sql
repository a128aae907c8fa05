-- A role, and its search path, until the transaction ends; taken only where it has rights in this database; see
-- configure.sql.
SELECT set_config('search_path', %(path)s, true),
       (SELECT set_config('role', r.rolname, true)
          FROM pg_roles r
         WHERE r.rolname = %(role)s
           AND pg_has_role(session_user, r.oid, %(right)s)
           AND coalesce(has_table_privilege(r.oid, to_regclass(%(table)s), 'SELECT'), false))
