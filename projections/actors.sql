-- Apply a batch of the log to the table conversation_actors: a row for each actor of each conversation, the empty actor
-- included, so that every conversation has a row. All rows of a conversation have its times. The conversation in which
-- a tenant registers its agents is not listed.
WITH folded AS MATERIALIZED (
    SELECT b.tenant_id, b.conversation_id,
           array_agg(DISTINCT b.actor) AS actors,
           bool_and(b.event_type IN ('conversation.erased', 'event.erased')) AS has_only_receipts,
           (array_agg(occurred_at(b.metadata, b.timestamp) ORDER BY b.version))[1] AS created_at,
           max(occurred_at(b.metadata, b.timestamp)) AS updated_at
      FROM batch b
     WHERE b.event_type NOT IN ('agent.registered', 'agent.unregistered', 'a2a.home', 'a2a.push_notification')
     GROUP BY b.tenant_id, b.conversation_id
),
updated AS (
    UPDATE conversation_actors a
       SET updated_at = f.updated_at
      FROM folded f
     WHERE a.tenant_id = f.tenant_id
       AND a.conversation_id = f.conversation_id
       AND a.updated_at < f.updated_at
),
-- With what the table has of the conversation before this batch.
joined AS (
    SELECT f.tenant_id, f.conversation_id, f.actors, f.has_only_receipts,
           coalesce(min(a.created_at), f.created_at) AS created_at,
           greatest(max(a.updated_at), f.updated_at) AS updated_at,
           array_agg(a.actor) FILTER (WHERE a.actor IS NOT NULL) AS known_actors
      FROM folded f
      LEFT JOIN conversation_actors a
        ON a.tenant_id = f.tenant_id
       AND a.conversation_id = f.conversation_id
     GROUP BY f.tenant_id, f.conversation_id, f.actors, f.has_only_receipts, f.created_at, f.updated_at
)
INSERT INTO conversation_actors (tenant_id, conversation_id, actor, created_at, updated_at)
SELECT j.tenant_id, j.conversation_id, n.actor, j.created_at, j.updated_at
  FROM joined j
 CROSS JOIN LATERAL unnest(j.actors) AS n (actor)
 WHERE j.known_actors IS NULL AND NOT j.has_only_receipts  -- otherwise its conversation is not listed
    OR n.actor <> ALL (j.known_actors);
