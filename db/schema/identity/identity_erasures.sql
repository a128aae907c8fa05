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
