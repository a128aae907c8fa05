-- End leases, as far as this holder still has them.
CREATE FUNCTION release_answers(tenant_id text, conversation_ids uuid[], message_ids uuid[], holder uuid) RETURNS void
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
    DELETE FROM answer_leases l
     USING (
           SELECT o.conversation_id, o.message_id
             FROM answer_leases o
             JOIN unnest(conversation_ids, message_ids) AS k (conversation_id, message_id)
               ON o.conversation_id = k.conversation_id
              AND o.message_id = k.message_id
            WHERE o.tenant_id = release_answers.tenant_id
              AND o.holder = release_answers.holder
            ORDER BY o.conversation_id, o.message_id
              FOR UPDATE OF o
           ) AS locked
     WHERE l.tenant_id = release_answers.tenant_id
       AND l.conversation_id = locked.conversation_id
       AND l.message_id = locked.message_id
       AND l.holder = release_answers.holder;
END
$$;

SELECT eventstore_set_owner('FUNCTION release_answers');
REVOKE ALL ON FUNCTION release_answers FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION release_answers', 'eventstore_app');
