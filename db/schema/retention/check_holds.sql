-- Raise the error of an erasure if a hold is on a conversation, or, unless versions is null, on these events of it. The
-- erasure checks it again itself (complete_erasure).
CREATE FUNCTION check_holds(tenant_id text, conversation_id uuid, versions int4multirange) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF check_holds.tenant_id IS DISTINCT FROM current_tenant() THEN
        PERFORM refuse_tenant(check_holds.tenant_id);
    END IF;
    PERFORM refuse_held(check_holds.tenant_id, check_holds.conversation_id, min(e.version),
                        array_agg(DISTINCT e.actor::text))
       FROM events e
      WHERE e.tenant_id = check_holds.tenant_id
        AND e.conversation_id = check_holds.conversation_id
        AND (check_holds.versions IS NULL OR e.version <@ check_holds.versions)
     HAVING count(*) > 0;
END
$$;

SELECT eventstore_set_owner('FUNCTION check_holds');
REVOKE ALL ON FUNCTION check_holds FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION check_holds', 'eventstore_eraser');
