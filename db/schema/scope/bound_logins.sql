-- Logins that act for one tenant, whatever they set; see bind_login. Each of them sees its own row, which policies read
-- on its behalf.
--
-- All other logins of the service set a tenant and, within it, a user, for one transaction at a time, so that a
-- connection, also of a pooler, can be shared by all callers:
--
--     SELECT set_config('eventstore.tenant', 'acme', true), set_config('eventstore.user', 'ana', true)
--
-- Without a tenant a transaction sees and writes nothing; without a user it acts for the whole tenant.
CREATE TABLE bound_logins (
    login     name NOT NULL,
    tenant_id varchar(255) COLLATE "C" NOT NULL,
    CONSTRAINT bound_logins_pkey PRIMARY KEY (login),
    CONSTRAINT bound_logins_tenant_check CHECK (tenant_id <> '')
);

COMMENT ON TABLE bound_logins IS 'Logins that act for one tenant, whatever they set; see bind_login';

ALTER TABLE bound_logins ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_itself ON bound_logins FOR SELECT USING (login = session_user);

SELECT eventstore_set_owner('TABLE bound_logins');
SELECT eventstore_grant('SELECT ON TABLE bound_logins', 'eventstore_auditor', 'eventstore_eraser',
                        'eventstore_reader', 'eventstore_search');
