-- name: listen
-- The channel, and what the listening session needs: statements that are planned once, by the index whatever the
-- statistics say; and an end for a session whose client is gone without a word, for it would sleep for ever.
SELECT notify_channel(),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('idle_session_timeout', %(idle)s, false)

-- name: look
-- The next positions that are taken, and of each the event, where the one who listens sees it.
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
