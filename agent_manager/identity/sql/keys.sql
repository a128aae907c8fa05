SELECT k.id, k.tenant_id, k.user_id, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at,
       CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
            WHEN k.expires_at <= now() THEN 'expired'
            WHEN t.suspended_at IS NOT NULL THEN 'suspended'
            WHEN u.disabled_at IS NOT NULL THEN 'disabled'
            ELSE 'active'
       END AS state
  FROM identity_keys k
  JOIN identity_tenants t ON t.id = k.tenant_id
  LEFT JOIN identity_users u ON u.tenant_id = k.tenant_id AND u.id = k.user_id
 WHERE k.tenant_id = %(tenant)s
 ORDER BY k.created_at, k.id
