-- A role is taken only where it has rights in this database: roles belong to the whole server, and another database's
-- migrations may have made them.
--
-- Nothing that is asked here runs for so long that compiling it first could pay. And before PostgreSQL 18 a session that
-- avoids sequential scans believes that reading a sequence, as each append does, is so dear that it must be compiled, for
-- a second at a time.
SELECT set_config('search_path', %(path)s, false),
       set_config('timezone', 'UTC', false),
       set_config('jit', 'off', false),
       (SELECT set_config('role', r.rolname, false)
          FROM pg_roles r
         WHERE r.rolname = %(role)s
           AND pg_has_role(session_user, r.oid, %(right)s)
           AND coalesce(has_table_privilege(r.oid, to_regclass(%(table)s), 'SELECT'), false))
