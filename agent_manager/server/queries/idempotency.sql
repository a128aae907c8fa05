-- name: claim_key
-- Claims an idempotency key for a request; returns the digest of the request that claimed it first, and its response.
-- Deletes a few expired keys.
WITH expired AS (
    DELETE FROM idempotency_keys k
     WHERE (k.tenant_id, k.id) <> (%(tenant)s, %(id)s)
       AND (k.tenant_id, k.id) IN (
               SELECT o.tenant_id, o.id
                 FROM idempotency_keys o
                WHERE o.created_at < CURRENT_TIMESTAMP - %(kept)s::interval
                ORDER BY o.created_at
                LIMIT 10
                  FOR UPDATE SKIP LOCKED
           )
)
INSERT INTO idempotency_keys AS k (tenant_id, id, request)
VALUES (%(tenant)s, %(id)s, %(request)s)
    ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE SET request = k.request
RETURNING k.request, k.status, k.media_type, k.location, k.body

-- name: store_response
-- Stores the response to the request that claimed a key.
UPDATE idempotency_keys k
   SET status = %(status)s, media_type = %(media_type)s, location = %(location)s, body = %(body)s
 WHERE k.tenant_id = %(tenant)s
   AND k.id = %(id)s
RETURNING k.id

-- name: release_key
-- Releases the key of a request that was refused and wrote nothing.
DELETE FROM idempotency_keys k
 WHERE k.tenant_id = %(tenant)s
   AND k.id = %(id)s
   AND k.status IS NULL
RETURNING k.id
