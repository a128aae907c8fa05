SELECT login::text, tenant_id
  FROM bound_logins
 ORDER BY login
