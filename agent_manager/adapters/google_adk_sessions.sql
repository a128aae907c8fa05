-- projection: adk_sessions
-- tables: adk_sessions, adk_shared_state
--
-- The sessions of google-adk, and the values that they have set of the state of their user and application. Readers add
-- what the log has after the checkpoints (queries/google_adk.sql), so the tables may be behind.
--
-- Each row belongs to one conversation, so that the partitions of the log never write the same row: of a value that
-- several sessions have set, the one with the highest position counts. Names are free texts of any length, and a key of
-- an index is not: the indexes have their hashes.
-- setup
CREATE TABLE adk_sessions (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    app_name        text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    session_id      text COLLATE "C" NOT NULL,
    generation      integer NOT NULL,
    is_deleted      boolean NOT NULL,
    state           jsonb NOT NULL,
    update_time     double precision NOT NULL,
    version         integer NOT NULL,
    is_rewound      boolean NOT NULL,
    CONSTRAINT adk_sessions_pkey PRIMARY KEY (tenant_id, conversation_id)
);
CREATE INDEX idx_adk_sessions_names ON adk_sessions (tenant_id, md5(app_name), md5(user_id), md5(session_id));
COMMENT ON COLUMN adk_sessions.is_rewound IS 'whether it went back to an earlier version: what it is then follows from the log';
CREATE TABLE adk_shared_state (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    app_name        text COLLATE "C" NOT NULL,
    scope           text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    value           jsonb NOT NULL,
    position        bigint NOT NULL
);
COMMENT ON COLUMN adk_shared_state.scope IS 'app, or user: and the name of the user';
CREATE INDEX idx_adk_shared_state_conversation_id ON adk_shared_state (tenant_id, conversation_id);
CREATE INDEX idx_adk_shared_state_latest ON adk_shared_state (tenant_id, md5(app_name), md5(scope), md5(key), position);
-- batch
WITH session_events AS MATERIALIZED (
    SELECT b.tenant_id, b.conversation_id, b.version, b.event_type,
           CASE WHEN b.event_type = 'conversation.created' THEN b.content #> '{metadata,adk}' END AS names,
           CASE b.event_type
               WHEN 'adk.state' THEN b.content
               WHEN 'adk.event' THEN b.content #> '{actions,state_delta}'
               WHEN 'message.added' THEN b.content #> '{metadata,adk,actions,state_delta}'
           END AS delta,
           CASE
               WHEN b.event_type = 'adk.event' AND jsonb_typeof(b.content -> 'timestamp') = 'number'
                   THEN (b.content ->> 'timestamp')::double precision
               WHEN b.event_type = 'message.added' AND jsonb_typeof(b.content #> '{metadata,adk,timestamp}') = 'number'
                   THEN (b.content #>> '{metadata,adk,timestamp}')::double precision
               WHEN b.event_type IN ('conversation.created', 'message.added', 'adk.event', 'adk.state')
                   THEN extract(epoch FROM occurred_at(b.metadata, b.timestamp))::double precision
           END AS seconds
      FROM batch b
),
folded AS MATERIALIZED (
    SELECT e.tenant_id, e.conversation_id,
           max(e.version) AS version,
           (array_agg(e.names ORDER BY e.version) FILTER (WHERE e.names IS NOT NULL))[1] AS names,
           (array_agg(e.event_type = 'conversation.deleted' ORDER BY e.version DESC)
               FILTER (WHERE e.event_type IN ('conversation.deleted', 'conversation.reactivated')))[1] AS is_deleted,
           (array_agg(e.seconds ORDER BY e.version DESC) FILTER (WHERE e.seconds IS NOT NULL))[1] AS seconds,
           bool_or(e.event_type = 'conversation.rewound') AS is_rewound
      FROM session_events e
     GROUP BY e.tenant_id, e.conversation_id
),
deltas AS MATERIALIZED (
    SELECT d.tenant_id, d.conversation_id, jsonb_object_agg(d.key, d.value) AS state
      FROM (SELECT DISTINCT ON (e.tenant_id, e.conversation_id, s.key)
                   e.tenant_id, e.conversation_id, s.key, s.value
              FROM session_events e
             CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(e.delta) = 'object' THEN e.delta END) AS s
             WHERE s.key !~ '^(app|user|temp):'
             ORDER BY e.tenant_id, e.conversation_id, s.key, e.version DESC) AS d
     GROUP BY d.tenant_id, d.conversation_id
),
updated AS (
    UPDATE adk_sessions s
       SET version     = f.version,
           is_deleted  = coalesce(f.is_deleted, s.is_deleted),
           is_rewound  = s.is_rewound OR f.is_rewound,
           update_time = coalesce(f.seconds, s.update_time),
           state       = CASE WHEN d.state IS NULL THEN s.state ELSE s.state || d.state END
      FROM folded f
      LEFT JOIN deltas d
        ON d.tenant_id = f.tenant_id
       AND d.conversation_id = f.conversation_id
     WHERE s.tenant_id = f.tenant_id
       AND s.conversation_id = f.conversation_id
)
INSERT INTO adk_sessions (tenant_id, conversation_id, app_name, user_id, session_id, generation, is_deleted, state,
                          update_time, version, is_rewound)
SELECT f.tenant_id, f.conversation_id, f.names ->> 'app_name', f.names ->> 'user_id', f.names ->> 'session_id',
       CASE WHEN f.names ->> 'generation' ~ '^[0-9]{1,9}$' THEN (f.names ->> 'generation')::integer ELSE 1 END,
       coalesce(f.is_deleted, false), coalesce(d.state, '{}'), f.seconds, f.version, f.is_rewound
  FROM folded f
  LEFT JOIN deltas d
    ON d.tenant_id = f.tenant_id
   AND d.conversation_id = f.conversation_id
 WHERE jsonb_typeof(f.names) = 'object'
   AND num_nulls(f.names ->> 'app_name', f.names ->> 'user_id', f.names ->> 'session_id') = 0
   AND NOT EXISTS (
           SELECT
             FROM adk_sessions s
            WHERE s.tenant_id = f.tenant_id
              AND s.conversation_id = f.conversation_id
       );

WITH latest AS MATERIALIZED (
    SELECT DISTINCT ON (b.tenant_id, b.conversation_id, d.key)
           b.tenant_id, b.conversation_id, s.app_name,
           CASE WHEN d.key LIKE 'user:%' THEN 'user:' || s.user_id ELSE 'app' END AS scope,
           substr(d.key, strpos(d.key, ':') + 1) AS key, d.value, b.position
      FROM batch b
      JOIN adk_sessions s
        ON s.tenant_id = b.tenant_id
       AND s.conversation_id = b.conversation_id
     CROSS JOIN LATERAL (
               SELECT CASE b.event_type
                          WHEN 'adk.state' THEN b.content
                          WHEN 'adk.event' THEN b.content #> '{actions,state_delta}'
                          WHEN 'message.added' THEN b.content #> '{metadata,adk,actions,state_delta}'
                      END
           ) AS e (delta)
     CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(e.delta) = 'object' THEN e.delta END) AS d
     WHERE b.event_type IN ('adk.state', 'adk.event', 'message.added')
       AND d.key ~ '^(app|user):'
     ORDER BY b.tenant_id, b.conversation_id, d.key, b.position DESC
),
updated AS (
    UPDATE adk_shared_state s
       SET value = l.value, position = l.position
      FROM latest l
     WHERE s.tenant_id = l.tenant_id
       AND s.conversation_id = l.conversation_id
       AND s.scope = l.scope
       AND s.key = l.key
)
INSERT INTO adk_shared_state (tenant_id, conversation_id, app_name, scope, key, value, position)
SELECT l.tenant_id, l.conversation_id, l.app_name, l.scope, l.key, l.value, l.position
  FROM latest l
 WHERE NOT EXISTS (
           SELECT
             FROM adk_shared_state s
            WHERE s.tenant_id = l.tenant_id
              AND s.conversation_id = l.conversation_id
              AND s.scope = l.scope
              AND s.key = l.key
       );
