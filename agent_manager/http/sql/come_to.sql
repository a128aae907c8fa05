-- The first of the conversations that has events up to a position, and the version that it had come to there.
SELECT i.id, latest.version
  FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS i (id, number)
 CROSS JOIN LATERAL (SELECT e.version
                       FROM events e
                      WHERE e.tenant_id = %(tenant)s
                        AND e.conversation_id = i.id
                        AND e.position <= %(position)s
                      ORDER BY e.version DESC
                      LIMIT 1) AS latest
 ORDER BY i.number
 LIMIT 1
