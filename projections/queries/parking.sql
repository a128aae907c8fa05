-- name: bounds
-- Narrow the open batch.
SELECT set_config('eventstore.lower_position', %(lower)s, true),
       set_config('eventstore.upper_position', %(upper)s, true)

-- name: park
-- Park the conversation of the one event that the batch shows.
INSERT INTO parked (projection, stage, tenant_id, conversation_id, position, version, event_id, event_type, sqlstate,
                    error, tries)
SELECT %(projection)s, %(stage)s, b.tenant_id, b.conversation_id, b.position, b.version, b.id, b.event_type,
       %(sqlstate)s, %(error)s, %(tries)s
  FROM batch b
RETURNING tenant_id, conversation_id, event_id, event_type

-- name: parked
SELECT p.projection, p.tenant_id, p.conversation_id, p.position, p.version, p.event_id, p.event_type, p.sqlstate, p.error,
       p.tries, p.parked_at
  FROM parked p
 WHERE p.stage = 'live'
   AND p.projection = ANY (%(projections)s)
   AND (p.tenant_id = %(tenant)s OR %(tenant)s::text IS NULL)
 ORDER BY p.parked_at, p.projection, p.position
 LIMIT %(limit)s

-- name: unpark
-- Open a batch of one parked conversation, up to the checkpoint of its partition.
WITH checkpoint AS MATERIALIZED (
    SELECT c.position
      FROM checkpoints c
     WHERE c.projection = %(projection)s
       AND c.stage = 'live'
       AND c.partition = partition_of(%(conversation_id)s)
       FOR UPDATE
),
unparked AS (
    DELETE FROM parked p
     USING checkpoint
     WHERE p.projection = %(projection)s
       AND p.stage = 'live'
       AND p.tenant_id = %(tenant_id)s
       AND p.conversation_id = %(conversation_id)s
    RETURNING p.position, p.tries
)
SELECT u.position - 1 AS lower, c.position AS upper, u.tries,
       set_config('eventstore.projection', %(projection)s, true),
       set_config('eventstore.stage', 'live', true),
       set_config('eventstore.tenant', %(tenant_id)s, true),
       set_config('eventstore.retried_conversation', %(conversation_id)s::text, true)
  FROM checkpoint c, unparked u
