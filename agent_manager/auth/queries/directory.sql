-- name: add_key
INSERT INTO identity_keys (id, tenant_id, user_id, name, hash, scopes, expires_at)
VALUES (%(id)s, %(tenant)s, %(user)s, %(name)s, %(hash)s, %(scopes)s, now() + %(lifetime)s)
RETURNING id, tenant_id, user_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, 'active' AS state

-- name: add_tenant
INSERT INTO identity_tenants (id, name)
VALUES (%(tenant)s, %(name)s)
    ON CONFLICT DO NOTHING
RETURNING id, name, created_at, suspended_at

-- name: add_user
-- Returns no row if the tenant does not exist, and a row with is_new false if the user exists; that user is unchanged.
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

-- name: bind_login
SELECT bind_login(%(login)s, %(tenant)s)

-- name: disable_user
UPDATE identity_users
   SET disabled_at = CASE WHEN %(disabled)s THEN coalesce(disabled_at, now()) END
 WHERE tenant_id = %(tenant)s
   AND id = %(id)s
RETURNING id, kind, name, created_at, disabled_at

-- name: has_events
SELECT EXISTS (SELECT FROM events WHERE tenant_id = %(tenant)s)

-- name: has_tenant
SELECT EXISTS (SELECT FROM identity_tenants WHERE id = %(tenant)s)

-- name: key_ids
SELECT k.id
  FROM identity_keys k
 WHERE k.tenant_id = %(tenant)s
   AND k.id BETWEEN %(beginning)s AND %(beginning)s || '~'  -- which follows all characters of an id
 ORDER BY k.id
 LIMIT %(limit)s

-- name: keys
-- All keys, the oldest first; with a limit, those in use first, the latest first.
SELECT k.id, k.tenant_id, k.user_id, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at, s.state
  FROM identity_keys k
  JOIN identity_tenants t ON t.id = k.tenant_id
  LEFT JOIN identity_users u ON u.tenant_id = k.tenant_id AND u.id = k.user_id
 CROSS JOIN LATERAL (
           SELECT CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
                       WHEN k.expires_at <= now() THEN 'expired'
                       WHEN t.suspended_at IS NOT NULL THEN 'suspended'
                       WHEN u.disabled_at IS NOT NULL THEN 'disabled'
                       ELSE 'active'
                  END AS state
       ) AS s
 WHERE k.tenant_id = %(tenant)s
   AND (k.user_id = %(user)s OR %(user)s::text IS NULL)
   AND (strpos(lower(concat_ws(E'\n', k.name, k.user_id, k.id)), lower(%(text)s)) > 0 OR %(text)s = '')
 ORDER BY CASE WHEN %(limit)s::int IS NOT NULL THEN s.state <> 'active' END,
          CASE WHEN %(limit)s::int IS NOT NULL THEN k.created_at END DESC,
          k.created_at, k.id
 LIMIT %(limit)s

-- name: logins
SELECT login::text, tenant_id
  FROM bound_logins
 ORDER BY login

-- name: revoke_key
UPDATE identity_keys
   SET revoked_at = coalesce(revoked_at, now())
 WHERE tenant_id = %(tenant)s
   AND id = %(id)s
RETURNING id, tenant_id, user_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, 'revoked' AS state

-- name: suspend_tenant
-- Suspending a suspended tenant keeps the time of the first suspension.
UPDATE identity_tenants
   SET suspended_at = CASE WHEN %(suspended)s THEN coalesce(suspended_at, now()) END
 WHERE id = %(tenant)s
RETURNING id, name, created_at, suspended_at

-- name: tenants
SELECT id, name, created_at, suspended_at
  FROM identity_tenants
 WHERE strpos(lower(concat_ws(E'\n', id, name)), lower(%(text)s)) > 0
    OR %(text)s = ''
 ORDER BY id
 LIMIT %(limit)s

-- name: tenants_in_log
-- Each step finds the next tenant by the index, whatever number of events the one before it has.
WITH RECURSIVE found AS (
    SELECT min(e.tenant_id) AS tenant_id
      FROM events e
     UNION ALL
    SELECT (SELECT min(e.tenant_id) FROM events e WHERE e.tenant_id > f.tenant_id)
      FROM found f
     WHERE f.tenant_id IS NOT NULL
)
SELECT tenant_id
  FROM found
 WHERE tenant_id IS NOT NULL
 LIMIT %(limit)s

-- name: unbind_login
SELECT unbind_login(%(login)s)

-- name: users
SELECT id, kind, name, created_at, disabled_at
  FROM identity_users
 WHERE tenant_id = %(tenant)s
   AND (id = %(user)s OR %(user)s::text IS NULL)
   AND (strpos(lower(concat_ws(E'\n', id, name)), lower(%(text)s)) > 0 OR %(text)s = '')
 ORDER BY id
 LIMIT %(limit)s
