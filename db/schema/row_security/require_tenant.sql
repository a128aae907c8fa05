-- Raise an error unless the transaction has a tenant; for logins that inherit the owner's rights to the tables without
-- being the owner. Row-level security hides every row from them, and what they copy, as pg_dump does with
-- --enable-row-security, would be empty without a word.
CREATE FUNCTION require_tenant() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    owner_name name := (SELECT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = 'bound_logins'::regclass);
BEGIN
    IF current_tenant() IS NULL THEN
        RAISE EXCEPTION 'row-level security hides all rows from %, which has no tenant', current_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Set eventstore.tenant; or, for all rows, SET ROLE %1$I (pg_dump --role=%1$s --enable-row-security).',
                                owner_name);
    END IF;
    RETURN true;
END
$$;

SELECT eventstore_set_owner('FUNCTION require_tenant');
