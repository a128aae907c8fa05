-- Append the receipt of an erasure to its conversation: who erased which versions, and why, but not what they held. It is
-- the last step of the erasure, so that readers of the log wait for an append, not for the whole erasure. It refuses to
-- name a version that is not erased.
--
-- is_whole: whether the conversation was erased up to here, not single events.
--
-- Removes members whose names were erased, and the stored responses to requests of the tenant, which repeat what was
-- written (idempotency_keys): a request that is repeated is then executed again, and finds what it wrote.
CREATE FUNCTION append_erasure(
    tenant_id       text,
    conversation_id uuid,
    event_id        uuid,
    versions        int4multirange,
    until           timestamptz,
    is_whole        boolean,
    erases_members  boolean,
    reason          text,
    actor           text,
    OUT "position"  bigint,
    OUT version     integer,
    OUT "timestamp" timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    allowed_tenant text := append_tenant();
    salt           bytea := uuid_send(gen_random_uuid());
    event_type     text := CASE WHEN is_whole THEN 'conversation.erased' ELSE 'event.erased' END;
    content        jsonb;
    head           record;
    must_notify    boolean;
BEGIN
    IF allowed_tenant <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id));
    IF (SELECT count(*)
          FROM events e
         WHERE e.tenant_id = append_erasure.tenant_id
           AND e.conversation_id = append_erasure.conversation_id
           AND e.version <@ versions
           AND e.salt IS NULL)
       IS DISTINCT FROM (SELECT sum(upper(r) - lower(r)) FROM unnest(versions) AS r) THEN
        RAISE EXCEPTION 'the receipt names versions % of conversation %, which are not all erased', versions, conversation_id
            USING ERRCODE = 'ES005';
    END IF;
    IF erases_members THEN
        DELETE FROM conversation_members m
         WHERE m.tenant_id = append_erasure.tenant_id
           AND m.conversation_id = append_erasure.conversation_id
           AND NOT EXISTS (
                   SELECT
                     FROM events e
                    WHERE e.tenant_id = append_erasure.tenant_id
                      AND e.conversation_id = append_erasure.conversation_id
                      AND (e.version = 1 AND e.metadata ->> 'eventstore.owner' = m.user_id
                           OR e.event_type IN ('conversation.shared', 'conversation.unshared')
                              AND e.content ->> 'user' = m.user_id)
               );
    END IF;
    DELETE FROM idempotency_keys k
     WHERE k.tenant_id = append_erasure.tenant_id
       AND k.status IS NOT NULL;

    must_notify := register_append();
    SELECT e.version, e.timestamp
      INTO head
      FROM events e
     WHERE e.tenant_id = append_erasure.tenant_id
       AND e.conversation_id = append_erasure.conversation_id
     ORDER BY e.version DESC
     LIMIT 1;
    position := nextval('events_position');
    version := head.version + 1;
    timestamp := event_timestamp(head.timestamp);
    content := jsonb_build_object(
        'versions', (SELECT jsonb_agg(jsonb_build_array(lower(r), upper(r) - 1) ORDER BY r) FROM unnest(versions) AS r),
        'until', to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        'erases_members', erases_members,
        'reason', reason
    );
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, version, 1, conversation_id, event_id, tenant_id, event_type, actor, content, '{}', salt,
            event_digest(salt, position, timestamp, version, 1::smallint, conversation_id, event_id, tenant_id, event_type,
                         actor, content, '{}'));
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_erasure');
REVOKE ALL ON FUNCTION append_erasure FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_erasure', 'eventstore_eraser');
