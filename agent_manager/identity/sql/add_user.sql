-- No row: there is no such tenant. A row with is_new false: there was such a user, who stays as they were.
WITH tenant AS (
    SELECT id
      FROM identity_tenants
     WHERE id = %(tenant)s
), added AS (
    INSERT INTO identity_users (tenant_id, id, kind, name)
    SELECT t.id, %(id)s, %(kind)s, %(name)s
      FROM tenant t
        ON CONFLICT DO NOTHING
    RETURNING id, kind, name, created_at, disabled_at
)
SELECT a.id IS NOT NULL AS is_new, a.id, a.kind, a.name, a.created_at, a.disabled_at
  FROM tenant t
  LEFT JOIN added a ON true
