-- The user of this transaction; null if it acts for the whole tenant.
CREATE FUNCTION asking_user() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('eventstore.user', true), '');

SELECT eventstore_own('FUNCTION asking_user');
