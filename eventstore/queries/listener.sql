-- name: listen
-- The channel to listen on, and the settings of the listening session: plans that are made once and use the index
-- whatever the statistics say; and a limit after which the server ends a session whose client has vanished.
SELECT notify_channel(),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('idle_session_timeout', %(idle)s, false)

-- name: begin_wait
SELECT begin_wait($1)

-- name: end_wait
SELECT end_wait()

-- name: look
-- The next positions of events, each with its event if row-level security shows it to the session.
SELECT p.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM positions_after($1, $2) AS p (position)
  LEFT JOIN LATERAL (SELECT e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id,
                            e.event_type, e.actor, e.content, e.metadata, e.salt, e.digest
                       FROM events e
                      WHERE e.position = p.position
                     OFFSET 0) AS e
    ON true
 ORDER BY p.position

-- name: set_scope
-- Set the tenant, the user and the role of the listening session; the role only if the login may set it.
SELECT set_config('eventstore.tenant', $1, false),
       set_config('eventstore.user', $2, false),
       (SELECT set_config('role', r.rolname, false)
          FROM pg_roles r
         WHERE r.rolname = $3
           AND pg_has_role(session_user, r.oid,
                           CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
           AND has_schema_privilege(r.oid, current_schema(), 'USAGE'))
