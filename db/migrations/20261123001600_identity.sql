-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Who may call: tenants, their users and agents, and the keys that they bear. Only the service reads and writes these;
-- they are no part of the log and are not derived from it.

CREATE TABLE identity_tenants (
    id           varchar(255) COLLATE "C" NOT NULL,
    name         varchar(255) NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    suspended_at timestamptz,
    CONSTRAINT identity_tenants_pkey PRIMARY KEY (id),
    CONSTRAINT identity_tenants_id_check CHECK (id <> '')
);

COMMENT ON COLUMN identity_tenants.suspended_at IS 'Since when nobody of the tenant is let in; null: all are';

-- "key:" begins the actor of a key that belongs to no user, so no user may be called so.
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

-- A key's secret is nowhere: it is shown once, and its SHA-256 stands here. It is 256 random bits, so it needs no salt and
-- no slow hash. A key is looked up by that hash, and not by its id: who tries ids learns nothing from the time it takes.
CREATE TABLE identity_keys (
    id           varchar(12) COLLATE "C" NOT NULL,
    tenant_id    varchar(255) COLLATE "C" NOT NULL,
    user_id      varchar(255) COLLATE "C",
    name         varchar(100) NOT NULL,
    hash         bytea NOT NULL,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    CONSTRAINT identity_keys_pkey PRIMARY KEY (id),
    CONSTRAINT identity_keys_hash_key UNIQUE (hash),
    CONSTRAINT identity_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES identity_tenants (id),
    CONSTRAINT identity_keys_user_id_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES identity_users (tenant_id, id),
    CONSTRAINT identity_keys_name_check CHECK (name <> ''),
    CONSTRAINT identity_keys_hash_check CHECK (length(hash) = 32),
    CONSTRAINT identity_keys_scopes_check CHECK (
        cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'audit', 'erase', 'admin']
    )
);

CREATE INDEX idx_identity_keys_tenant_id ON identity_keys (tenant_id, created_at);

COMMENT ON COLUMN identity_keys.user_id IS 'Who bears it; null: a key that acts for the whole tenant';
COMMENT ON COLUMN identity_keys.hash IS 'SHA-256 of the secret';
COMMENT ON COLUMN identity_keys.last_used_at IS 'When it was last used; up to a minute late';

-- What names somebody or lets somebody in is written once: the service can take rights away and give them back, but
-- cannot turn a key into another one, nor make it last longer.
SELECT eventstore_own('TABLE identity_tenants'),
       eventstore_own('TABLE identity_users'),
       eventstore_own('TABLE identity_keys'),
       eventstore_grant('SELECT, INSERT, UPDATE (name, suspended_at) ON TABLE identity_tenants', 'eventstore_app'),
       eventstore_grant('SELECT, INSERT, UPDATE (name, disabled_at) ON TABLE identity_users', 'eventstore_app'),
       eventstore_grant('SELECT, INSERT, UPDATE (revoked_at, last_used_at) ON TABLE identity_keys', 'eventstore_app');

-- A login that is bound to one tenant is no service, even where somebody gave it the service's role as well: it could make
-- itself a key of another tenant. The owner is not held by this, as foreign keys are checked in its name.
CREATE FUNCTION login_is_bound() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT
RETURN EXISTS (SELECT FROM bound_logins b WHERE b.login = session_user);

SELECT eventstore_own('FUNCTION login_is_bound()');
REVOKE ALL ON FUNCTION login_is_bound() FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION login_is_bound()', 'eventstore_app');

ALTER TABLE identity_tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity_users ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON identity_tenants USING ((SELECT NOT login_is_bound()));
CREATE POLICY unbound ON identity_users USING ((SELECT NOT login_is_bound()));
CREATE POLICY unbound ON identity_keys USING ((SELECT NOT login_is_bound()));

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP TABLE identity_keys;
DROP TABLE identity_users;
DROP TABLE identity_tenants;
DROP FUNCTION login_is_bound();
