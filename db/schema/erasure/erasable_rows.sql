-- Return the numbers of events and rows of live read tables that an erasure changes or removes: those of a
-- conversation, or, unless versions is null, those that have these versions.
CREATE FUNCTION erasable_rows(tenant_id text, conversation_id uuid, versions int4multirange)
RETURNS TABLE (table_name text, rows bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    target record;
BEGIN
    table_name := 'events';
    rows := (SELECT count(*)
               FROM events e
              WHERE e.tenant_id = erasable_rows.tenant_id
                AND e.conversation_id = erasable_rows.conversation_id
                AND (versions IS NULL OR e.version <@ versions)
                AND e.event_type NOT IN ('conversation.erased', 'event.erased')
                AND e.salt IS NOT NULL);
    RETURN NEXT;
    FOR target IN SELECT * FROM conversation_tables('live') AS t ORDER BY t.name LOOP
        CONTINUE WHEN target.conversation_column IS NULL OR versions IS NOT NULL AND NOT target.has_version;
        table_name := target.name;
        EXECUTE format('SELECT count(*) FROM %s WHERE tenant_id = $1 AND %I = $2 AND ($3 IS NULL OR %s)', target.relation,
                       target.conversation_column, CASE WHEN target.has_version THEN 'version <@ $3' ELSE 'true' END)
           INTO rows USING tenant_id, conversation_id, versions;
        RETURN NEXT;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION erasable_rows');
REVOKE ALL ON FUNCTION erasable_rows FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION erasable_rows', 'eventstore_projector');
