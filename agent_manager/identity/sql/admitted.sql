-- Those of the named users who are let in: of a tenant that is known and not suspended, and not disabled themselves.
SELECT asked.tenant_id, asked.user_id
  FROM unnest(%(tenants)s::text[], %(users)s::text[]) AS asked (tenant_id, user_id)
  JOIN identity_tenants t ON t.id = asked.tenant_id
  LEFT JOIN identity_users u ON u.tenant_id = asked.tenant_id AND u.id = asked.user_id
 WHERE t.suspended_at IS NULL
   AND u.disabled_at IS NULL
