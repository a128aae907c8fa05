-- A role is taken only where it has rights in this database: roles belong to the whole server, and another database's
-- migrations may have made them.
SELECT set_config('search_path', %(path)s, false),
       set_config('timezone', 'UTC', false),
       (SELECT set_config('role', r.rolname, false)
          FROM pg_roles r
         WHERE r.rolname = %(role)s
           AND pg_has_role(session_user, r.oid, %(right)s)
           AND coalesce(has_table_privilege(r.oid, to_regclass(%(table)s), 'SELECT'), false))
