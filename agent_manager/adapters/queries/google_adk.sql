-- name: adk_session
-- What the tables hold of a session, by its latest generation, and of the state that it shares: of each value, the
-- latest that a session has set. Each row begins with the position that they have applied, and the last of the log.
SELECT applied.position, applied.last, page.*
  FROM (SELECT p.position, last_position() FROM ({position}) AS p (position)) AS applied (position, last)
  LEFT JOIN (
           (SELECT 'session' AS scope, '' AS key, s.state AS value, 0::bigint AS position, s.generation, s.is_deleted,
                   s.version, s.update_time, s.is_rewound
              FROM adk_sessions s
             WHERE s.tenant_id = %(tenant)s
               AND md5(s.app_name) = md5(%(app)s)
               AND md5(s.user_id) = md5(%(user)s)
               AND md5(s.session_id) = md5(%(session)s)
               AND (s.app_name, s.user_id, s.session_id) = (%(app)s, %(user)s, %(session)s)
             ORDER BY s.generation DESC
             LIMIT 1)
            UNION ALL
           SELECT scope.name, latest.key, latest.value, latest.position, 0, false, 0, 0, false
             FROM unnest(%(scopes)s::text[]) AS scope (name)
            CROSS JOIN LATERAL (
                      -- One step for each key, however many sessions have set it.
                      WITH RECURSIVE latest AS (
                          (SELECT s.key, s.value, s.position
                             FROM adk_shared_state s
                            WHERE s.tenant_id = %(tenant)s
                              AND md5(s.app_name) = md5(%(app)s)
                              AND md5(s.scope) = md5(scope.name)
                              AND (s.app_name, s.scope) = (%(app)s, scope.name)
                            ORDER BY md5(s.key) DESC, s.position DESC
                            LIMIT 1)
                           UNION ALL
                          SELECT next.key, next.value, next.position
                            FROM latest l
                           CROSS JOIN LATERAL (
                                     SELECT s.key, s.value, s.position
                                       FROM adk_shared_state s
                                      WHERE s.tenant_id = %(tenant)s
                                        AND md5(s.app_name) = md5(%(app)s)
                                        AND md5(s.scope) = md5(scope.name)
                                        AND (s.app_name, s.scope) = (%(app)s, scope.name)
                                        AND md5(s.key) < md5(l.key)
                                      ORDER BY md5(s.key) DESC, s.position DESC
                                      LIMIT 1
                                 ) AS next
                      )
                      SELECT l.key, l.value, l.position FROM latest l
                  ) AS latest
       ) AS page ON true

-- name: adk_sessions
-- The sessions in the tables that are not deleted, of an application or of one of its users.
SELECT applied.position, applied.last, page.*
  FROM (SELECT p.position, last_position() FROM ({position}) AS p (position)) AS applied (position, last)
  LEFT JOIN (
           SELECT s.conversation_id, s.user_id, s.session_id, s.state, s.update_time, s.version, s.generation, s.is_rewound
             FROM adk_sessions s
            WHERE s.tenant_id = %(tenant)s
              AND md5(s.app_name) = md5(%(app)s)
              AND s.app_name = %(app)s
              AND (%(user)s::text IS NULL OR md5(s.user_id) = md5(%(user)s) AND s.user_id = %(user)s)
              AND NOT s.is_deleted
       ) AS page ON true

-- name: adk_shared_states
-- Of each value that the sessions of an application share, or those of each of its users, or of one of them, the latest
-- that a session has set.
SELECT applied.position, applied.last, page.*
  FROM (SELECT p.position, last_position() FROM ({position}) AS p (position)) AS applied (position, last)
  LEFT JOIN (
           SELECT DISTINCT ON (s.scope, s.key) s.scope, s.key, s.value, s.position
             FROM adk_shared_state s
            WHERE s.tenant_id = %(tenant)s
              AND md5(s.app_name) = md5(%(app)s)
              AND s.app_name = %(app)s
              AND (%(user)s::text IS NULL OR md5(s.scope) IN (md5('app'), md5('user:' || %(user)s)))
            ORDER BY s.scope, s.key, s.position DESC
       ) AS page ON true

-- name: adk_tail
-- What the log has of the sessions of an application after the position that the tables have applied: all of it, or what
-- sets values that sessions share. The first events, which name the sessions, are looked up last (OFFSET 0).
SELECT e.conversation_id, e.version, e.position, e.event_type, e.occurred_at, e.adk -> 'timestamp',
       e.adk -> 'actions' -> 'state_delta', first.content -> 'metadata' -> 'adk'
  FROM (SELECT e.*
          FROM (SELECT e.tenant_id, e.conversation_id, e.version, e.position, e.event_type,
                       occurred_at(e.metadata, e.timestamp) AS occurred_at,
                       CASE e.event_type
                           WHEN 'message.added' THEN e.content -> 'metadata' -> 'adk'
                           WHEN 'adk.event' THEN e.content
                           WHEN 'adk.state' THEN jsonb_build_object('actions', jsonb_build_object('state_delta', e.content))
                       END AS adk
                  FROM events e
                 WHERE (e.position, 0) > (%(applied)s, 0)
                   AND e.tenant_id = %(tenant)s
                   AND e.event_type = ANY (%(types)s)) AS e
         CROSS JOIN LATERAL (SELECT e.adk -> 'actions' -> 'state_delta') AS d (delta)
         WHERE NOT %(shared)s
            OR EXISTS (
                   SELECT
                     FROM jsonb_object_keys(CASE WHEN jsonb_typeof(d.delta) = 'object' THEN d.delta END) AS k (key)
                    WHERE k.key ~ '^(app|user):'
               )
        OFFSET 0) AS e
  JOIN events first
    ON first.tenant_id = e.tenant_id
   AND first.conversation_id = e.conversation_id
   AND first.version = 1
   AND first.event_type = 'conversation.created'
 WHERE first.content -> 'metadata' -> 'adk' ->> 'app_name' = %(app)s
 ORDER BY e.position

-- name: adk_artifact_events
-- The events of the artifacts of a session or a user that their conversation does not hide: of one of them, or of all, in
-- order.
SELECT e.content
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.event_type = 'adk.artifact'
   AND e.salt IS NOT NULL
   AND (%(filename)s::text IS NULL OR e.content ->> 'filename' = %(filename)s)
   AND NOT EXISTS (SELECT FROM hiding_events(e.tenant_id, e.conversation_id, e.version))
 ORDER BY e.version

-- name: adk_head
-- The version of a conversation.
SELECT e.version
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
 ORDER BY e.version DESC
 LIMIT 1
