-- name: create_scratch
CREATE TEMPORARY TABLE {table} (LIKE {table} INCLUDING ALL)

-- name: targets
SELECT c.partition, c.position FROM checkpoints c WHERE c.projection = %(projection)s AND c.stage = 'live'

-- name: replay_range
SELECT set_config('eventstore.projection', %(projection)s, true),
       set_config('eventstore.stage', 'live', true),
       set_config('eventstore.partitions', (%(partitions)s::smallint[])::text, true),
       set_config('eventstore.lower_position', %(lower)s, true),
       set_config('eventstore.upper_position', %(upper)s, true)

-- name: next_position
SELECT max(n.position), count(*)
  FROM (SELECT e.position
          FROM events e
         WHERE e.position > %(lower)s
           AND e.position <= %(target)s
         ORDER BY e.position
         LIMIT %(size)s) AS n

-- name: differing_rows
(SELECT false AS is_expected, t::text AS row
   FROM {live} t
 EXCEPT ALL
 SELECT false, t::text
   FROM {other} t
  LIMIT %(limit)s)
 UNION ALL
(SELECT true, t::text
   FROM {other} t
 EXCEPT ALL
 SELECT true, t::text
   FROM {live} t
  LIMIT %(limit)s)

-- name: differing_members
SELECT m.tenant_id, m.conversation_id, m.user_id, m.expected, m.found
  FROM differing_members() AS m
 ORDER BY m.tenant_id, m.conversation_id, m.user_id
 LIMIT 100

-- name: batch_of_all
-- The batch of a verification, which replays the log beside the live tables: of a parked conversation, the events
-- before the one that failed.
CREATE OR REPLACE TEMPORARY VIEW batch AS
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.position > current_setting('eventstore.lower_position')::bigint
   AND e.position <= current_setting('eventstore.upper_position')::bigint
   AND partition_of(e.conversation_id) = ANY (current_setting('eventstore.partitions')::smallint[])
   AND e.conversation_id <> administration_id()
   AND NOT EXISTS (
           SELECT
             FROM parked p
            WHERE p.projection = current_setting('eventstore.projection')
              AND p.stage = 'live'
              AND p.tenant_id = e.tenant_id
              AND p.conversation_id = e.conversation_id
              AND p.position <= e.position
       )
