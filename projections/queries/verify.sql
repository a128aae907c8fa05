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
