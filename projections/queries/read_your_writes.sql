-- name: at_least
-- A statement whose rows begin with the position that the projections have applied, in the same snapshot. If they have
-- not applied the wanted position, there is one row with nulls instead of the statement's rows.
SELECT applied.position, page.*
  FROM ({position}) AS applied (position)
  LEFT JOIN LATERAL (
{page}
       ) AS page ON applied.position >= %(at_least)s

-- name: lagging
-- The partitions in which a projection has not applied a position that was written to one of their conversations, and the
-- highest of these positions. A null conversation stands for one of every partition.
SELECT s.partition, max(w.position)
  FROM unnest(%(conversations)s::uuid[], %(positions)s::bigint[]) AS w (conversation_id, position)
  JOIN generate_series(0, 15) AS s (partition)
    ON w.conversation_id IS NULL OR s.partition = partition_of(w.conversation_id)
 CROSS JOIN unnest(%(projections)s::text[]) AS p (name)
  LEFT JOIN checkpoints c
    ON c.projection = p.name
   AND c.stage = 'live'
   AND c.partition = s.partition
 WHERE coalesce(c.position, 0) < w.position
 GROUP BY s.partition
 ORDER BY s.partition

-- name: written
-- The conversations that a tenant wrote to above one position and up to another, with the highest position of each.
SELECT e.conversation_id, max(e.position)
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND (e.position, 0) > (%(after)s, 0)
   AND (e.position, 0) <= (%(until)s, 0)
 GROUP BY e.conversation_id

-- name: unapplied
-- The number of a tenant's events up to a position that projections have not applied, by projection.
SELECT c.projection, count(*)
  FROM events e
  JOIN unnest(%(projections)s::text[], %(partitions)s::integer[], %(positions)s::bigint[])
       AS c (projection, partition, position)
    ON c.partition = partition_of(e.conversation_id)
   AND c.position < e.position
 WHERE e.tenant_id = %(tenant)s
   AND (e.position, 0) > (%(after)s, 0)
   AND (e.position, 0) <= (%(until)s, 0)
 GROUP BY c.projection

-- name: checkpoint_positions
-- The position that each projection has applied in each partition.
SELECT p.name, s.partition, coalesce(c.position, 0)
  FROM unnest(%(projections)s::text[]) AS p (name)
 CROSS JOIN generate_series(0, 15) AS s (partition)
  LEFT JOIN checkpoints c
    ON c.projection = p.name
   AND c.stage = 'live'
   AND c.partition = s.partition

-- name: flush
-- Flush the write-ahead log up to here, by a transaction that writes an empty message to it; not to a synchronous standby.
SELECT pg_logical_emit_message(set_config('synchronous_commit', 'local', true) = 'local', 'eventstore', '')
