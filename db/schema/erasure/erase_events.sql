-- Erase events of a conversation: all of them if versions is null, none that is later than until. The digest stays and
-- the salt is destroyed, so the digest reveals nothing, and all proofs that were made with it hold. The lock of the
-- conversation is held until the end of the transaction, in which refold_conversation and append_erasure must follow.
--
-- Receipts of erasures are erased only if versions names them and members are erased, because the user who is named in
-- them is; erased_versions then has what they named, so that the new receipt takes their place. It is null if there is
-- nothing left to erase.
CREATE FUNCTION erase_events(
    tenant_id       text,
    conversation_id uuid,
    versions        int4multirange,
    until           timestamptz,
    erases_members  boolean,
    lock_wait_ms    integer,
    OUT erased_versions int4multirange,
    OUT erased_until    timestamptz,
    OUT events          bigint
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
BEGIN
    PERFORM refuse_old_snapshots();
    IF lock_wait_ms > 0 THEN
        PERFORM set_config('lock_timeout', lock_wait_ms::text, true);
    END IF;
    PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id));
    PERFORM check_erasure(tenant_id, conversation_id, versions);
    PERFORM set_config('eventstore.erases_members', erases_members::text, true);
    WITH erased AS (
        UPDATE events e
           SET salt = NULL -- the trigger makes the rest (refuse_change_of_events)
         WHERE e.tenant_id = erase_events.tenant_id
           AND e.conversation_id = erase_events.conversation_id
           AND (versions IS NULL OR e.version <@ versions)
           AND (until IS NULL OR e.timestamp <= until)
           AND (e.event_type NOT IN ('conversation.erased', 'event.erased') OR erases_members AND versions IS NOT NULL)
           AND (e.salt IS NOT NULL
                OR erases_members AND (e.metadata ? 'eventstore.owner' OR e.content ? 'user'))
        RETURNING e.version, e.timestamp
    )
    SELECT range_agg(int4range(e.version, e.version, '[]')), max(e.timestamp), count(*)
      INTO erased_versions, erased_until, events
      FROM erased e;
    erased_versions := erased_versions + (
        SELECT coalesce(range_agg(int4range((r ->> 0)::integer, (r ->> 1)::integer, '[]')), '{}')
          FROM events e
         CROSS JOIN LATERAL jsonb_array_elements(e.content -> 'versions') AS r
         WHERE e.tenant_id = erase_events.tenant_id
           AND e.conversation_id = erase_events.conversation_id
           AND e.event_type IN ('conversation.erased', 'event.erased')
           AND e.version <@ erased_versions
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION erase_events');
REVOKE ALL ON FUNCTION erase_events FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION erase_events', 'eventstore_eraser');
