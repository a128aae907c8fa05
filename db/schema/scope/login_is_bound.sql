-- Return whether the login of the session is bound to one tenant. Such a login may not use the tables of the
-- service, even if it has the service's role: it could create a key of another tenant. The owner passes, because
-- foreign keys are checked in its name.
CREATE FUNCTION login_is_bound() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT
RETURN EXISTS (SELECT FROM bound_logins b WHERE b.login = session_user);

SELECT eventstore_set_owner('FUNCTION login_is_bound');
REVOKE ALL ON FUNCTION login_is_bound FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION login_is_bound', 'eventstore_app');
