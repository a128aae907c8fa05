-- Raise the error of an erasure if a hold is on a user, or on anything that an erasure of the user would erase; so that
-- nothing of it is erased then.
CREATE FUNCTION check_holds_of_user(tenant_id text, user_id text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF check_holds_of_user.tenant_id IS DISTINCT FROM current_tenant() THEN
        PERFORM refuse_tenant(check_holds_of_user.tenant_id);
    END IF;
    PERFORM refuse_held(check_holds_of_user.tenant_id, NULL, 1, ARRAY[check_holds_of_user.user_id]);
    PERFORM check_holds(check_holds_of_user.tenant_id, u.conversation_id, u.versions)
       FROM erasure_of_user(check_holds_of_user.tenant_id, check_holds_of_user.user_id) AS u;
END
$$;

SELECT eventstore_set_owner('FUNCTION check_holds_of_user');
REVOKE ALL ON FUNCTION check_holds_of_user FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION check_holds_of_user', 'eventstore_eraser');
