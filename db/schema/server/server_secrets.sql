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
