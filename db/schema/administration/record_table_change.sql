-- Record what no trigger of rows records: that a table of administration was emptied by TRUNCATE, and that rows of
-- identity_erasures were changed or deleted, which name nobody.
CREATE FUNCTION record_table_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM record_administrative_act(
        NULL, CASE TG_OP WHEN 'TRUNCATE' THEN 'table_truncated' ELSE 'table_changed' END,
        jsonb_build_object('table', TG_TABLE_NAME));
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_table_change');
REVOKE ALL ON FUNCTION record_table_change FROM PUBLIC;

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_tenants
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_users
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_keys
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON identity_erasures
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON bound_logins
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON legal_holds
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON retention_rules
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER truncation_is_recorded
    AFTER TRUNCATE ON paused_projections
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

CREATE TRIGGER changes_are_recorded
    AFTER UPDATE OR DELETE ON identity_erasures
    FOR EACH STATEMENT EXECUTE FUNCTION record_table_change();

-- migrate:down
DROP TRIGGER changes_are_recorded ON identity_erasures;
DROP TRIGGER truncation_is_recorded ON paused_projections;
DROP TRIGGER truncation_is_recorded ON retention_rules;
DROP TRIGGER truncation_is_recorded ON legal_holds;
DROP TRIGGER truncation_is_recorded ON bound_logins;
DROP TRIGGER truncation_is_recorded ON identity_erasures;
DROP TRIGGER truncation_is_recorded ON identity_keys;
DROP TRIGGER truncation_is_recorded ON identity_users;
DROP TRIGGER truncation_is_recorded ON identity_tenants;
DROP FUNCTION record_table_change;
