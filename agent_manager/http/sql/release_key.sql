-- Releases the key of a request that was refused: it wrote nothing.
DELETE FROM idempotency_keys k
 WHERE k.tenant_id = %(tenant)s
   AND k.id = %(id)s
   AND k.status IS NULL
RETURNING k.id
