-- The next positions that are taken, and of each the event, where the one who listens sees it.
SELECT p.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM positions_after($1, $2) AS p (position)
  LEFT JOIN LATERAL (SELECT e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id,
                            e.event_type, e.actor, e.content, e.metadata, e.salt, e.digest
                       FROM events e
                      WHERE e.position = p.position
                     OFFSET 0) AS e
    ON true
 ORDER BY p.position
