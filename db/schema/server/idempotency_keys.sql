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
