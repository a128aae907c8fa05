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
