-- Record every change of legal holds and retention rules as an administrative act, also those made in SQL. The outcome of a
-- run is not a change of its rule.
CREATE FUNCTION record_retention_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    is_hold boolean := TG_TABLE_NAME = 'legal_holds';
    present jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    act     text := CASE TG_OP
                        WHEN 'INSERT' THEN 'added' WHEN 'UPDATE' THEN 'changed'
                        ELSE CASE WHEN is_hold THEN 'released' ELSE 'removed' END
                    END;
BEGIN
    PERFORM record_administrative_act(
        present ->> 'tenant_id',
        CASE WHEN is_hold THEN 'hold_' ELSE 'retention_rule_' END || act,
        CASE
            WHEN is_hold THEN jsonb_strip_nulls(jsonb_build_object(
                'hold', present -> 'id', 'conversation_id', present -> 'conversation_id', 'user', present -> 'user_id'))
            WHEN act = 'removed' THEN jsonb_build_object('rule', present -> 'id')
            ELSE jsonb_strip_nulls(jsonb_build_object(
                     'rule', present -> 'id', 'age_seconds', extract(epoch FROM (present ->> 'age')::interval),
                     'since', present -> 'since', 'state', present -> 'state', 'user', present -> 'user_id'))
                 || CASE present -> 'metadata' WHEN 'null' THEN '{}'
                         ELSE jsonb_build_object('metadata', present -> 'metadata') END
        END,
        CASE act WHEN 'added' THEN present ->> 'reason' END,
        CASE act WHEN 'added' THEN present ->> CASE WHEN is_hold THEN 'placed_by' ELSE 'added_by' END END);
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_retention_change');
REVOKE ALL ON FUNCTION record_retention_change FROM PUBLIC;

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE ON legal_holds
    FOR EACH ROW EXECUTE FUNCTION record_retention_change();

CREATE TRIGGER changes_are_recorded
    AFTER INSERT OR DELETE OR UPDATE OF tenant_id, id, age, since, state, user_id, metadata, reason, added_by, added_at
    ON retention_rules
    FOR EACH ROW EXECUTE FUNCTION record_retention_change();

-- migrate:down
DROP TRIGGER changes_are_recorded ON retention_rules;
DROP TRIGGER changes_are_recorded ON legal_holds;
DROP FUNCTION record_retention_change;
