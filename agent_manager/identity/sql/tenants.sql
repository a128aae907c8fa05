SELECT id, name, created_at, suspended_at
  FROM identity_tenants
 ORDER BY id
