-- Claims an idempotency key for a request: gives the digest of the request that claimed it first, and the answer to that.
-- Forgets a few of the keys that have expired.
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
