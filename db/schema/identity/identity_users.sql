-- The users and agents of tenants. "key:" begins the actor of a key without a user, so no user may have such an id.
CREATE TABLE identity_users (
    tenant_id   varchar(255) COLLATE "C" NOT NULL,
    id          varchar(255) COLLATE "C" NOT NULL,
    kind        varchar(5) NOT NULL DEFAULT 'user',
    name        varchar(255) NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    disabled_at timestamptz,
    CONSTRAINT identity_users_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT identity_users_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES identity_tenants (id),
    CONSTRAINT identity_users_id_check CHECK (id <> '' AND NOT starts_with(id, 'key:')),
    CONSTRAINT identity_users_kind_check CHECK (kind IN ('user', 'agent'))
);

ALTER TABLE identity_users ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON identity_users USING ((SELECT NOT login_is_bound()));

SELECT eventstore_set_owner('TABLE identity_users');
SELECT eventstore_grant('SELECT, INSERT, UPDATE (name, disabled_at) ON TABLE identity_users', 'eventstore_app');
