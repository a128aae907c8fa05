INSERT INTO identity_keys (id, tenant_id, user_id, name, hash, scopes, expires_at)
VALUES (%(id)s, %(tenant)s, %(user)s, %(name)s, %(hash)s, %(scopes)s, now() + %(lifetime)s)
RETURNING id, tenant_id, user_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, 'active' AS state
