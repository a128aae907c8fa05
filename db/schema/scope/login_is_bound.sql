-- A login that is bound to one tenant is no service, even where somebody gave it the service's role as well: it could make
-- itself a key of another tenant. The owner is not held by this, as foreign keys are checked in its name.
CREATE FUNCTION login_is_bound() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT
RETURN EXISTS (SELECT FROM bound_logins b WHERE b.login = session_user);

SELECT eventstore_own('FUNCTION login_is_bound');
REVOKE ALL ON FUNCTION login_is_bound FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION login_is_bound', 'eventstore_app');
