-- name: read_conversation_backwards
-- A line is left out if its parameter is not given.
--
-- The rows end where they take the bytes that are given, as far as the server can tell without reading them. The window
-- sums in the order in which the rows come.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest, e.total
  FROM (SELECT e.*, sum(e.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT e.*, 500 + estimated_size(e.content) + estimated_size(e.metadata) AS size
                  FROM events e
                 WHERE e.tenant_id = %(tenant)s
                   AND e.conversation_id = %(conversation_id)s
                   AND e.version BETWEEN %(first)s AND %(last)s
                   AND e.event_type = ANY (%(types)s::text[])
                   AND e.actor = %(actor)s
                   AND e.metadata ->> 'correlation_id' = %(correlation_id)s
                   AND e.timestamp >= %(since)s
                   AND e.timestamp < %(until)s
                 ORDER BY e.version DESC
                 LIMIT %(limit)s) AS e) AS e
 WHERE e.total - e.size < %(bytes)s

-- name: read_conversation_forwards
-- See "read_conversation_backwards".
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest, e.total
  FROM (SELECT e.*, sum(e.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT e.*, 500 + estimated_size(e.content) + estimated_size(e.metadata) AS size
                  FROM events e
                 WHERE e.tenant_id = %(tenant)s
                   AND e.conversation_id = %(conversation_id)s
                   AND e.version BETWEEN %(first)s AND %(last)s
                   AND e.event_type = ANY (%(types)s::text[])
                   AND e.actor = %(actor)s
                   AND e.metadata ->> 'correlation_id' = %(correlation_id)s
                   AND e.timestamp >= %(since)s
                   AND e.timestamp < %(until)s
                 ORDER BY e.version ASC
                 LIMIT %(limit)s) AS e) AS e
 WHERE e.total - e.size < %(bytes)s

-- name: read_log_backwards
-- See "read_conversation_backwards".
--
-- This form makes the planner use the index of positions, with and without statistics. The lower bound compares rows:
-- of two plain bounds the planner would assume that one event in 200 matches, and sort. coalesce keeps it from using
-- another index for the conditions, which would read all events of a tenant for each page.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest, e.total
  FROM (SELECT e.*, sum(e.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT e.*, 500 + estimated_size(e.content) + estimated_size(e.metadata) AS size
                  FROM events e
                 WHERE e.position <= %(last)s
                   AND (e.position, 0) >= (%(first)s, 0)
                   AND coalesce(true
                                AND e.tenant_id = %(tenant)s
                                AND e.event_type = ANY (%(types)s::text[])
                                AND e.actor = %(actor)s
                                AND e.metadata ->> 'correlation_id' = %(correlation_id)s
                                AND e.timestamp >= %(since)s
                                AND e.timestamp < %(until)s
                       , false)
                 ORDER BY e.position DESC
                 LIMIT %(limit)s) AS e) AS e
 WHERE e.total - e.size < %(bytes)s

-- name: read_log_forwards
-- See "read_log_backwards".
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest, e.total
  FROM (SELECT e.*, sum(e.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT e.*, 500 + estimated_size(e.content) + estimated_size(e.metadata) AS size
                  FROM events e
                 WHERE e.position >= %(first)s
                   AND (e.position, 0) <= (%(last)s, 0)
                   AND coalesce(true
                                AND e.tenant_id = %(tenant)s
                                AND e.event_type = ANY (%(types)s::text[])
                                AND e.actor = %(actor)s
                                AND e.metadata ->> 'correlation_id' = %(correlation_id)s
                                AND e.timestamp >= %(since)s
                                AND e.timestamp < %(until)s
                       , false)
                 ORDER BY e.position ASC
                 LIMIT %(limit)s) AS e) AS e
 WHERE e.total - e.size < %(bytes)s

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

-- name: fork_source
-- The version that a conversation has reached, and whether it is deleted.
SELECT h.version,
       coalesce((SELECT e.event_type = 'conversation.deleted'
                   FROM events e
                  WHERE e.tenant_id = %(tenant)s
                    AND e.conversation_id = %(conversation_id)s
                    AND e.event_type IN ('conversation.deleted', 'conversation.reactivated')
                  ORDER BY e.version DESC
                  LIMIT 1), false)
  FROM (SELECT e.version
          FROM events e
         WHERE e.tenant_id = %(tenant)s
           AND e.conversation_id = %(conversation_id)s
         ORDER BY e.version DESC
         LIMIT 1) AS h
