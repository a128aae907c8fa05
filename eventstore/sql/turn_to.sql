-- For whom the listening session looks from now on: a caller, under the auditor's role, or everybody, under the
-- projector's. A role is taken only where the login may.
SELECT set_config('eventstore.tenant', $1, false),
       set_config('eventstore.user', $2, false),
       (SELECT set_config('role', r.rolname, false)
          FROM pg_roles r
         WHERE r.rolname = $3
           AND pg_has_role(session_user, r.oid,
                           CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
           AND has_schema_privilege(r.oid, current_schema(), 'USAGE'))
