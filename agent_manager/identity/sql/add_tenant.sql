INSERT INTO identity_tenants (id, name)
VALUES (%(id)s, %(name)s)
    ON CONFLICT DO NOTHING
RETURNING id, name, created_at, suspended_at
