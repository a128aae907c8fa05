UPDATE identity_keys
   SET revoked_at = coalesce(revoked_at, now())
 WHERE tenant_id = %(tenant)s
   AND id = %(id)s
RETURNING id, tenant_id, user_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, 'revoked' AS state
