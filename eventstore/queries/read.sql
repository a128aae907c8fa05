-- name: read_conversation_backwards
-- A line is left out if its parameter is not given.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest, pg_column_size(e.content) + pg_column_size(e.metadata) AS bytes
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version BETWEEN %(first)s AND %(last)s
   AND e.event_type = ANY (%(types)s::text[])
   AND e.actor = %(actor)s
   AND e.timestamp >= %(since)s
   AND e.timestamp < %(until)s
 ORDER BY e.version DESC
 LIMIT %(limit)s

-- name: read_conversation_forwards
-- A line is left out if its parameter is not given.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest, pg_column_size(e.content) + pg_column_size(e.metadata) AS bytes
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version BETWEEN %(first)s AND %(last)s
   AND e.event_type = ANY (%(types)s::text[])
   AND e.actor = %(actor)s
   AND e.timestamp >= %(since)s
   AND e.timestamp < %(until)s
 ORDER BY e.version ASC
 LIMIT %(limit)s

-- name: read_log_backwards
-- A line is left out if its parameter is not given.
--
-- This form makes the planner use the index of positions, with and without statistics. The lower bound compares rows:
-- of two plain bounds the planner would assume that one event in 200 matches, and sort. coalesce keeps it from using
-- another index for the conditions, which would read all events of a tenant for each page.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest, pg_column_size(e.content) + pg_column_size(e.metadata) AS bytes
  FROM events e
 WHERE e.position <= %(last)s
   AND (e.position, 0) >= (%(first)s, 0)
   AND coalesce(true
                AND e.tenant_id = %(tenant)s
                AND e.event_type = ANY (%(types)s::text[])
                AND e.actor = %(actor)s
                AND e.timestamp >= %(since)s
                AND e.timestamp < %(until)s
       , false)
 ORDER BY e.position DESC
 LIMIT %(limit)s

-- name: read_log_forwards
-- A line is left out if its parameter is not given.
--
-- This form makes the planner use the index of positions, with and without statistics. The upper bound compares rows:
-- of two plain bounds the planner would assume that one event in 200 matches, and sort. coalesce keeps it from using
-- another index for the conditions, which would read all events of a tenant for each page.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest, pg_column_size(e.content) + pg_column_size(e.metadata) AS bytes
  FROM events e
 WHERE e.position >= %(first)s
   AND (e.position, 0) <= (%(last)s, 0)
   AND coalesce(true
                AND e.tenant_id = %(tenant)s
                AND e.event_type = ANY (%(types)s::text[])
                AND e.actor = %(actor)s
                AND e.timestamp >= %(since)s
                AND e.timestamp < %(until)s
       , false)
 ORDER BY e.position ASC
 LIMIT %(limit)s

-- name: first_event
-- The position of the first event of any tenant at or above a position; the highest possible one if there is none.
SELECT first_event_at_or_after(%(first)s)

-- name: last_event
-- The position of the last event of any tenant at or below a position; 0 if there is none.
SELECT last_event_at_or_before(%(horizon)s)

-- name: time_edges
-- The positions of the first event at or after a time, and of the last one before another time; null if there is none.
SELECT t.low, t.high
  FROM positions_in_time(%(since)s::timestamptz, %(until)s::timestamptz) AS t

-- name: time_range
-- The lowest and the highest position in a range of time. OFFSET 0 keeps the planner from scanning by position.
SELECT min(e.position), max(e.position)
  FROM (SELECT e.position
          FROM events e
         WHERE e.timestamp >= %(since)s::timestamptz
           AND e.timestamp < %(until)s::timestamptz
        OFFSET 0) AS e

-- name: horizon
SELECT log_horizon()
