-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: identity/identity_tenants.sql
-- The tenants. These tables are only for the service; they are not part of the log and are not derived from it.
--
-- The tenant that a store has by default exists from the beginning (IRREPLACEABLE in eventstore/database/dbmate.py).
CREATE TABLE identity_tenants (
    id           varchar(255) COLLATE "C" NOT NULL,
    name         varchar(255) NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    suspended_at timestamptz,
    CONSTRAINT identity_tenants_pkey PRIMARY KEY (id),
    CONSTRAINT identity_tenants_id_check CHECK (id <> '')
);

COMMENT ON COLUMN identity_tenants.suspended_at IS
    'Start of the suspension, in which no caller of the tenant is admitted; null: not suspended';

INSERT INTO identity_tenants (id) VALUES ('default');

ALTER TABLE identity_tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON identity_tenants USING ((SELECT NOT login_is_bound()));

SELECT eventstore_set_owner('TABLE identity_tenants');
SELECT eventstore_grant('SELECT, INSERT, UPDATE (name, suspended_at) ON TABLE identity_tenants', 'eventstore_app');

-- file: identity/identity_users.sql
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

-- file: identity/identity_keys.sql
-- API keys. A key's secret is not stored: it is shown once, and its SHA-256 is kept here. It is 256 random bits, so it
-- needs no salt and no slow hash. A key is looked up by that hash, not by its id, so timing tells nothing about ids.
--
-- Columns that name somebody or grant access are written once: the service can revoke rights and restore them, but
-- cannot turn a key into another one or extend it.
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

COMMENT ON COLUMN identity_keys.user_id IS 'Its holder; null if the key acts for the whole tenant';
COMMENT ON COLUMN identity_keys.hash IS 'SHA-256 of the secret';
COMMENT ON COLUMN identity_keys.last_used_at IS 'Last use; up to a minute late';

ALTER TABLE identity_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON identity_keys USING ((SELECT NOT login_is_bound()));

SELECT eventstore_set_owner('TABLE identity_keys');
SELECT eventstore_grant('SELECT, INSERT, UPDATE (revoked_at, last_used_at) ON TABLE identity_keys', 'eventstore_app');

-- file: identity/identity_erasures.sql
-- The users who were erased, as salted hashes of their ids: a backup from before is restored without them. Not part of the
-- log.
CREATE TABLE identity_erasures (
    tenant_id varchar(255) COLLATE "C" NOT NULL,
    salt      bytea NOT NULL,
    hash      bytea NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT identity_erasures_pkey PRIMARY KEY (tenant_id, hash)
);

COMMENT ON COLUMN identity_erasures.hash IS 'SHA-256 of the salt and the id';

ALTER TABLE identity_erasures ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON identity_erasures USING ((SELECT NOT login_is_bound()));

SELECT eventstore_set_owner('TABLE identity_erasures');
SELECT eventstore_grant('SELECT ON TABLE identity_erasures', 'eventstore_app');

-- file: server/idempotency_keys.sql
-- The Idempotency-Keys of HTTP requests, each with a digest of its request and, once it has succeeded, the response.
-- Not part of the log: without a row here a repeated request is executed again, with the same ids, and finds what it
-- wrote (agent_manager/server/idempotency.py).
CREATE TABLE idempotency_keys (
    tenant_id    varchar(255) COLLATE "C" NOT NULL,
    id           uuid NOT NULL,
    request      bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    status       smallint,
    media_type   text,
    location     text,
    body         bytea,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, id)
);

CREATE INDEX idx_idempotency_keys_created_at ON idempotency_keys (created_at);

COMMENT ON COLUMN idempotency_keys.id IS 'Derived from the tenant, the caller, the address and the key';
COMMENT ON COLUMN idempotency_keys.request IS 'SHA-256 of the request';
COMMENT ON COLUMN idempotency_keys.status IS 'Status of the response; null: there is none yet';

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON idempotency_keys
    USING ((SELECT NOT login_is_bound()) OR tenant_id = (SELECT current_tenant()));

SELECT eventstore_set_owner('TABLE idempotency_keys');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE ON TABLE idempotency_keys', 'eventstore_app');

-- file: server/server_secrets.sql
-- Secrets that all server processes of a store share, such as the key that seals cursors
-- (agent_manager/server/sealed_tokens.py). Not part of the log: if the row is missing, a server creates one, and what was
-- sealed before can no longer be opened.
CREATE TABLE server_secrets (
    name      text NOT NULL,
    secret    bytea NOT NULL,
    CONSTRAINT server_secrets_pkey PRIMARY KEY (name)
);

INSERT INTO server_secrets (name, secret)  -- random UUIDs come from the server's cryptographic generator
SELECT 'seal', sha512(string_agg(uuid_send(gen_random_uuid()), ''))
  FROM generate_series(1, 4);

ALTER TABLE server_secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY unbound ON server_secrets
    USING ((SELECT NOT login_is_bound()));

SELECT eventstore_set_owner('TABLE server_secrets');
SELECT eventstore_grant('SELECT, INSERT ON TABLE server_secrets', 'eventstore_app');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP TABLE server_secrets;
DROP TABLE idempotency_keys;
DROP TABLE identity_erasures;
DROP TABLE identity_keys;
DROP TABLE identity_users;
DROP TABLE identity_tenants;
