-- name: read_conversation_backwards
-- A line whose parameter is not given is left out.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
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
-- A line whose parameter is not given is left out.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
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
-- A line whose parameter is not given is left out.
--
-- The shape leaves the planner one sensible way, with and without statistics: along the index of positions. The lower
-- bound is a comparison of rows, because of a pair of plain ones it would guess that they leave one event in 200, and
-- sort; and it cannot look into coalesce for conditions that another index serves, to read all of a tenant for each page.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
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
-- A line whose parameter is not given is left out.
--
-- The shape leaves the planner one sensible way, with and without statistics: along the index of positions. The upper
-- bound is a comparison of rows, because of a pair of plain ones it would guess that they leave one event in 200, and
-- sort; and it cannot look into coalesce for conditions that another index serves, to read all of a tenant for each page.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
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
-- The position of the first event at or above another, whosever it is; the highest there can be if there is none.
SELECT event_not_below(%(first)s)

-- name: last_event
-- The position of the last event at or below the horizon, whosever it is; 0 in an empty log.
SELECT event_not_above(%(horizon)s)

-- name: time_edges
-- Positions of the first event in time at or after a moment, and of the last before another; null where there is none.
SELECT t.low, t.high
  FROM positions_in_time(%(since)s::timestamptz, %(until)s::timestamptz) AS t

-- name: time_range
-- The lowest and the highest position in a range of time; OFFSET 0 keeps the planner from looking for them by position.
SELECT min(e.position), max(e.position)
  FROM (SELECT e.position
          FROM events e
         WHERE e.timestamp >= %(since)s::timestamptz
           AND e.timestamp < %(until)s::timestamptz
        OFFSET 0) AS e

-- name: horizon
SELECT log_horizon()
