-- Opens a batch of one parked conversation: up to where the others of its share are.
WITH checkpoint AS MATERIALIZED (
    SELECT c.position
      FROM checkpoints c
     WHERE c.projection = %(projection)s
       AND c.stage = 'live'
       AND c.share = share_of(%(conversation_id)s)
       FOR UPDATE
),
gone AS (
    DELETE FROM parked p
     USING checkpoint
     WHERE p.projection = %(projection)s
       AND p.stage = 'live'
       AND p.tenant_id = %(tenant_id)s
       AND p.conversation_id = %(conversation_id)s
    RETURNING p.position, p.tries
)
SELECT g.position - 1 AS lower, c.position AS upper, g.tries,
       set_config('eventstore.projection', %(projection)s, true),
       set_config('eventstore.stage', 'live', true),
       set_config('eventstore.tenant', %(tenant_id)s, true),
       set_config('eventstore.conversation', %(conversation_id)s::text, true)
  FROM checkpoint c, gone g
