-- Raise an error if the transaction may not erase a conversation, or these versions of it. A user, if the transaction has
-- one, may erase the conversations that they own, and their own events in others.
CREATE FUNCTION check_erasure(tenant_id text, conversation_id uuid, versions int4multirange) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
BEGIN
    IF tenant_id IS DISTINCT FROM current_tenant() THEN
        RAISE EXCEPTION 'this transaction may not erase events of the tenant %', quote_nullable(tenant_id)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, by a login that may set it.';
    END IF;
    IF current_tenant_user() IS NOT NULL
       AND NOT EXISTS (SELECT FROM members_of(conversation_id) AS m WHERE m.user_id = current_tenant_user() AND m.access = 'own')
       AND (versions IS NULL
            OR EXISTS (
                   SELECT
                     FROM events e
                    WHERE e.tenant_id = check_erasure.tenant_id
                      AND e.conversation_id = check_erasure.conversation_id
                      AND e.version <@ versions
                      AND e.actor <> current_tenant_user()
                      AND NOT (e.conversation_id = administration_id()
                               AND e.content ->> 'user' IS NOT DISTINCT FROM current_tenant_user())
               )) THEN
        RAISE EXCEPTION 'the user may not erase this of conversation %', conversation_id
            USING ERRCODE = 'ES007',
                  DETAIL = jsonb_build_object('conversation_id', conversation_id)::text;
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION check_erasure');
REVOKE ALL ON FUNCTION check_erasure FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION check_erasure', 'eventstore_eraser');
