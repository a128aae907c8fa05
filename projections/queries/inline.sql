-- name: batch_inline
-- The batch of an inline projection: the new events of the append's transaction.
CREATE OR REPLACE TEMPORARY VIEW batch AS
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.position = ANY (current_setting('eventstore.positions')::bigint[])

-- name: append_inline
SELECT a.position, a.version, a.timestamp, a.is_new
  FROM set_config('eventstore.tenant', %(tenant)s, true) AS scope (tenant),
       append_events(
           ARRAY[scope.tenant], ARRAY[%(conversation_id)s]::uuid[], ARRAY[%(expected)s]::integer[],
           array_fill(1, ARRAY[cardinality(%(ids)s::uuid[])]), %(ids)s::uuid[], %(types)s::text[],
           %(versions)s::smallint[], %(actors)s::text[], %(contents)s::jsonb[], %(metadatas)s::jsonb[]
       ) AS a
 ORDER BY a.ordinal

-- name: show_positions
SELECT set_config('eventstore.positions', (%(positions)s::bigint[])::text, true)
