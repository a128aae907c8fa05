-- Suspending again leaves the time since when it is.
UPDATE identity_tenants
   SET suspended_at = CASE WHEN %(suspended)s THEN coalesce(suspended_at, now()) END
 WHERE id = %(id)s
RETURNING id, name, created_at, suspended_at
