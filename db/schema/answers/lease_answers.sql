-- Take the leases of messages, except those that another holder has and that have not expired. Returns the holder of
-- each, its expiry, and the version of its conversation, read after the lease was taken.
--
-- The three functions lock rows in the order of their keys, so that they do not deadlock. Leases need not be durable: a
-- message without its lease is leased again. If the transaction has written something before, they leave its durability
-- as it is.
CREATE FUNCTION lease_answers(
    tenant_id        text,
    conversation_ids uuid[],
    message_ids      uuid[],
    holder           uuid,
    seconds          double precision
) RETURNS TABLE (conversation_id uuid, message_id uuid, held_by uuid, expires_at timestamptz, version integer)
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
    INSERT INTO answer_leases AS l (tenant_id, conversation_id, message_id, holder, expires_at)
    SELECT tenant_id, k.conversation_id, k.message_id, holder, clock_timestamp() + make_interval(secs => seconds)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
     ORDER BY k.conversation_id, k.message_id
    ON CONFLICT ON CONSTRAINT answer_leases_pkey DO UPDATE
       SET holder = excluded.holder, expires_at = excluded.expires_at
     WHERE l.holder = excluded.holder OR l.expires_at < clock_timestamp();
    RETURN QUERY
    SELECT k.conversation_id, k.message_id, l.holder, l.expires_at, coalesce(h.version, 0)
      FROM unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
      JOIN answer_leases l
        ON l.tenant_id = lease_answers.tenant_id
       AND l.conversation_id = k.conversation_id
       AND l.message_id = k.message_id
      LEFT JOIN LATERAL (
               SELECT e.tenant_id, e.conversation_id, e.version
                 FROM events e
                WHERE (e.tenant_id, e.conversation_id, e.version)
                      <= (lease_answers.tenant_id, k.conversation_id, 2147483647)
                ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
                LIMIT 1
           ) AS h
        ON h.tenant_id = lease_answers.tenant_id
       AND h.conversation_id = k.conversation_id;
END
$$;

SELECT eventstore_set_owner('FUNCTION lease_answers');
REVOKE ALL ON FUNCTION lease_answers FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION lease_answers', 'eventstore_app');
