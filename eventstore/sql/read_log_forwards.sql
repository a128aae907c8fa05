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
