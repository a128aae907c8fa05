-- name: admitted
-- Those of the named users who are let in: of a tenant that is known and not suspended, and not disabled themselves.
SELECT asked.tenant_id, asked.user_id
  FROM unnest(%(tenants)s::text[], %(users)s::text[]) AS asked (tenant_id, user_id)
  JOIN identity_tenants t ON t.id = asked.tenant_id
  LEFT JOIN identity_users u ON u.tenant_id = asked.tenant_id AND u.id = asked.user_id
 WHERE t.suspended_at IS NULL
   AND u.disabled_at IS NULL

-- name: bearers
-- The keys of these secrets that let somebody in now; what is missing here is refused, whatever the reason.
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

-- name: note_uses
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
