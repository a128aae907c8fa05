-- name: admitted_users
-- The users who may call: their tenant is known and not suspended, and they are not disabled.
SELECT c.tenant_id, c.user_id
  FROM unnest(%(tenants)s::text[], %(users)s::text[]) AS c (tenant_id, user_id)
  JOIN identity_tenants t ON t.id = c.tenant_id
  LEFT JOIN identity_users u ON u.tenant_id = c.tenant_id AND u.id = c.user_id
 WHERE t.suspended_at IS NULL
   AND u.disabled_at IS NULL

-- name: keys_by_hash
-- The keys with these hashes that are valid now. A key without a row is rejected, whatever the reason.
SELECT k.hash, k.id, k.tenant_id, k.user_id, k.name, k.scopes,
       extract(epoch FROM k.expires_at - now())::float8 AS seconds_left
  FROM identity_keys k
  JOIN identity_tenants t ON t.id = k.tenant_id
  LEFT JOIN identity_users u ON u.tenant_id = k.tenant_id AND u.id = k.user_id
 WHERE k.hash = ANY (%(hashes)s)
   AND k.revoked_at IS NULL
   AND (k.expires_at IS NULL OR k.expires_at > now())
   AND t.suspended_at IS NULL
   AND u.disabled_at IS NULL

-- name: record_uses
-- Another process records the use of a key whose row is locked. Rows are locked in order of id, to avoid deadlocks.
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
