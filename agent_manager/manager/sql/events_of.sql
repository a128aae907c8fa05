-- The events of conversations beyond the versions that are known, some at a time.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM unnest(%(conversations)s::uuid[], %(versions)s::int[]) AS known (conversation_id, version)
 CROSS JOIN LATERAL (
           SELECT e.*
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = known.conversation_id
              AND e.version > known.version
            ORDER BY e.version
            LIMIT %(limit)s
       ) AS e
 ORDER BY e.conversation_id, e.version
