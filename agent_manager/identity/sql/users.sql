SELECT id, kind, name, created_at, disabled_at
  FROM identity_users
 WHERE tenant_id = %(tenant)s
 ORDER BY id
