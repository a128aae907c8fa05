-- The user of this transaction; null if it acts for the whole tenant.
CREATE FUNCTION current_tenant_user() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('eventstore.user', true), '');

SELECT eventstore_set_owner('FUNCTION current_tenant_user');
