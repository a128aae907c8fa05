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
