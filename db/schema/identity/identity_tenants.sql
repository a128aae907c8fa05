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
