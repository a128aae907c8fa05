SELECT p.projection, p.tenant_id, p.conversation_id, p.position, p.version, p.event_id, p.event_type, p.sqlstate, p.error,
       p.tries, p.parked_at
  FROM parked p
 WHERE p.stage = 'live'
   AND p.projection = ANY (%(projections)s)
   AND (p.tenant_id = %(tenant)s OR %(tenant)s::text IS NULL)
 ORDER BY p.parked_at, p.projection, p.position
