-- name: batch_of_one
-- The batch of a retry: the events of one parked conversation.
CREATE OR REPLACE TEMPORARY VIEW batch AS
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.tenant_id = current_setting('eventstore.tenant')
   AND e.conversation_id = current_setting('eventstore.retried_conversation')::uuid
   AND e.position > current_setting('eventstore.lower_position')::bigint
   AND e.position <= current_setting('eventstore.upper_position')::bigint
   AND NOT EXISTS (
           SELECT
             FROM parked p
            WHERE p.projection = current_setting('eventstore.projection')
              AND p.stage = current_setting('eventstore.stage')
              AND p.tenant_id = e.tenant_id
              AND p.conversation_id = e.conversation_id
              AND p.position <= e.position
       )

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
