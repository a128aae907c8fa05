-- Record that a table of tenants, users, keys, bound logins, legal holds or retention rules was emptied by TRUNCATE, which
-- fires no trigger of its rows.
CREATE FUNCTION record_truncation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM record_administrative_act(NULL, 'table_truncated', jsonb_build_object('table', TG_TABLE_NAME));
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_truncation');
REVOKE ALL ON FUNCTION record_truncation FROM PUBLIC;

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_tenants
    FOR EACH STATEMENT EXECUTE FUNCTION record_truncation();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_users
    FOR EACH STATEMENT EXECUTE FUNCTION record_truncation();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_keys
    FOR EACH STATEMENT EXECUTE FUNCTION record_truncation();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_erasures
    FOR EACH STATEMENT EXECUTE FUNCTION record_truncation();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON bound_logins
    FOR EACH STATEMENT EXECUTE FUNCTION record_truncation();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON legal_holds
    FOR EACH STATEMENT EXECUTE FUNCTION record_truncation();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON retention_rules
    FOR EACH STATEMENT EXECUTE FUNCTION record_truncation();

-- migrate:down
DROP TRIGGER truncation_is_recorded ON retention_rules;
DROP TRIGGER truncation_is_recorded ON legal_holds;
DROP TRIGGER truncation_is_recorded ON bound_logins;
DROP TRIGGER truncation_is_recorded ON identity_erasures;
DROP TRIGGER truncation_is_recorded ON identity_keys;
DROP TRIGGER truncation_is_recorded ON identity_users;
DROP TRIGGER truncation_is_recorded ON identity_tenants;
DROP FUNCTION record_truncation;
