-- A row that is locked is being noted by somebody else. In order of id, so that nobody waits for anybody in a circle.
UPDATE identity_keys
   SET last_used_at = now()
 WHERE id IN (
           SELECT k.id
             FROM identity_keys k
            WHERE k.id = ANY (%(ids)s)
              AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute')
            ORDER BY k.id
              FOR UPDATE SKIP LOCKED
       )
RETURNING id
