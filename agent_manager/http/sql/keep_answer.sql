-- Keeps the answer to the request that claimed a key.
UPDATE idempotency_keys k
   SET status = %(status)s, media_type = %(media_type)s, location = %(location)s, body = %(body)s
 WHERE k.tenant_id = %(tenant)s
   AND k.id = %(id)s
RETURNING k.id
