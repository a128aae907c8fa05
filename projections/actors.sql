-- Apply a batch of the log to the table conversation_actors: a row for each actor of each conversation, the empty actor
-- included, so that every conversation has a row. All rows of a conversation have its times. The conversation in which
-- a tenant registers its agents is not listed.
WITH folded AS MATERIALIZED (
    SELECT b.tenant_id, b.conversation_id, max(occurred_at(b.metadata, b.timestamp)) AS updated_at
      FROM batch b
     WHERE b.event_type NOT IN ('agent.registered', 'agent.unregistered')
     GROUP BY b.tenant_id, b.conversation_id
)
UPDATE conversation_actors a
   SET updated_at = f.updated_at
  FROM folded f
 WHERE a.tenant_id = f.tenant_id
   AND a.conversation_id = f.conversation_id
   AND a.updated_at < f.updated_at;

WITH folded AS MATERIALIZED (
    SELECT b.tenant_id, b.conversation_id,
           array_agg(DISTINCT b.actor) AS actors,
           (array_agg(occurred_at(b.metadata, b.timestamp) ORDER BY b.version))[1] AS created_at,
           max(occurred_at(b.metadata, b.timestamp)) AS updated_at
      FROM batch b
     WHERE b.event_type NOT IN ('agent.registered', 'agent.unregistered')
     GROUP BY b.tenant_id, b.conversation_id
)
INSERT INTO conversation_actors (tenant_id, conversation_id, actor, created_at, updated_at)
SELECT f.tenant_id, f.conversation_id, n.actor, coalesce(k.created_at, f.created_at),
       greatest(k.updated_at, f.updated_at)
  FROM folded f
 CROSS JOIN LATERAL unnest(f.actors) AS n (actor)
  LEFT JOIN LATERAL (
           SELECT a.created_at, a.updated_at
             FROM conversation_actors a
            WHERE a.tenant_id = f.tenant_id
              AND a.conversation_id = f.conversation_id
            LIMIT 1
       ) AS k ON true
 WHERE NOT EXISTS (
           SELECT
             FROM conversation_actors a
            WHERE a.tenant_id = f.tenant_id
              AND a.conversation_id = f.conversation_id
              AND a.actor = n.actor
       );
