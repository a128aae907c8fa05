-- Remove the binding of a login; false if it had none.
CREATE FUNCTION unbind_login(login name) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM bound_logins b WHERE b.login = unbind_login.login;
    RETURN FOUND;
END
$$;

SELECT eventstore_set_owner('FUNCTION unbind_login');
REVOKE ALL ON FUNCTION unbind_login FROM PUBLIC;
