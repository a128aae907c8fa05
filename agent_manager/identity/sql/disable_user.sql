UPDATE identity_users
   SET disabled_at = CASE WHEN %(disabled)s THEN coalesce(disabled_at, now()) END
 WHERE tenant_id = %(tenant)s
   AND id = %(id)s
RETURNING id, kind, name, created_at, disabled_at
