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
