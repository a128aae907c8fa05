-- Raise the error of an erasure if a hold is on the events; see holds_on. The lock is taken before the query: a hold that
-- was placed before this statement is found, and none can be placed from here to the end of the transaction.
CREATE FUNCTION refuse_held(tenant_id text, conversation_id uuid, first_version integer, actors text[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    found legal_holds;
BEGIN
    PERFORM lock_holds(refuse_held.tenant_id, true);
    SELECT h.*
      INTO found
      FROM holds_on(refuse_held.tenant_id, refuse_held.conversation_id, refuse_held.first_version, refuse_held.actors) AS h
     LIMIT 1;
    IF found.id IS NOT NULL THEN
        RAISE EXCEPTION 'the legal hold % forbids the erasure', found.id
            USING ERRCODE = 'ES010',
                  DETAIL = jsonb_build_object('id', found.id, 'conversation_id', found.conversation_id,
                                              'user', found.user_id, 'reason', found.reason)::text,
                  HINT = 'Release the hold first, if it is not needed any more.';
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_held');
REVOKE ALL ON FUNCTION refuse_held FROM PUBLIC;
