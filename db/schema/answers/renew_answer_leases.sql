-- Renew leases of a holder, also expired ones that no other holder has taken, and return their messages. Delete leases
-- that ended a day ago without being released.
CREATE FUNCTION renew_answer_leases(
    tenant_id        text,
    conversation_ids uuid[],
    message_ids      uuid[],
    holder           uuid,
    seconds          double precision
) RETURNS TABLE (conversation_id uuid, message_id uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    bound text := append_tenant();
BEGIN
    IF bound <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    PERFORM
       FROM answer_leases l
      WHERE l.tenant_id = renew_answer_leases.tenant_id
        AND (l.holder = renew_answer_leases.holder OR l.expires_at < clock_timestamp() - interval '1 day')
      ORDER BY l.conversation_id, l.message_id
        FOR UPDATE;
    DELETE FROM answer_leases l
     WHERE l.tenant_id = renew_answer_leases.tenant_id
       AND l.expires_at < clock_timestamp() - interval '1 day';
    RETURN QUERY
    UPDATE answer_leases AS l
       SET expires_at = clock_timestamp() + make_interval(secs => seconds)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
     WHERE l.tenant_id = renew_answer_leases.tenant_id
       AND l.conversation_id = k.conversation_id
       AND l.message_id = k.message_id
       AND l.holder = renew_answer_leases.holder
    RETURNING l.conversation_id, l.message_id;
END
$$;

SELECT eventstore_set_owner('FUNCTION renew_answer_leases');
REVOKE ALL ON FUNCTION renew_answer_leases FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION renew_answer_leases', 'eventstore_app');
