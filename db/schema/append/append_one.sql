-- Append one event to one conversation: append_group without the cost of sets, if the event is new and accepted.
-- Otherwise append_group finds the outcome.
CREATE FUNCTION append_one(
    tenant_id        text,
    conversation_id  uuid,
    expected_version integer,
    event_id         uuid,
    event_type       text,
    schema_version   smallint,
    actor            text,
    content          jsonb,
    metadata         jsonb,
    lock_wait_ms     integer,
    user_id          text,
    OUT outcome      "char",
    OUT "position"   bigint,
    OUT version      integer,
    OUT "timestamp"  timestamptz,
    OUT problem      text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    head           record;
    is_plain       boolean;
    salt           bytea;
    content_text   text;
    metadata_text  text;
    allowed_tenant text;
    must_notify    boolean;
BEGIN
    IF num_nulls(tenant_id, conversation_id, expected_version, event_id, event_type, schema_version, actor, content,
                 metadata, lock_wait_ms, user_id) > 0 THEN
        RAISE EXCEPTION 'an argument of the append is null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    allowed_tenant := append_tenant();
    IF allowed_tenant <> tenant_id THEN
        PERFORM refuse_tenant(tenant_id);
    END IF;
    problem := coalesce(validate_event(event_type, content, metadata),
                        validate_given_id(tenant_id, conversation_id, event_type, content));
    IF problem IS NOT NULL THEN
        outcome := 'r';
        RETURN;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        -- An acknowledged event is durable, whatever the session prefers.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF lock_wait_ms <> 0 THEN
        PERFORM limit_lock_wait(lock_wait_ms);
        PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id));
    ELSIF NOT pg_try_advisory_xact_lock(conversation_lock_key(tenant_id, conversation_id)) THEN
        outcome := 'b';
        RETURN;
    END IF;
    must_notify := register_append();

    -- From here on each statement sees everything that was committed to this conversation.
    SELECT h.version, h.timestamp, h.event_type,
           (SELECT (k.tenant_id, k.conversation_id, k.id)
                   = (append_one.tenant_id, append_one.conversation_id, append_one.event_id)
              FROM events k
             WHERE (k.tenant_id, k.conversation_id, k.id)
                   >= (append_one.tenant_id, append_one.conversation_id, append_one.event_id)
             ORDER BY k.tenant_id, k.conversation_id, k.id
             LIMIT 1) AS is_known
      INTO head
      FROM (SELECT e.tenant_id, e.conversation_id, e.version, e.timestamp, e.event_type
              FROM events e
             WHERE (e.tenant_id, e.conversation_id, e.version)
                   <= (append_one.tenant_id, append_one.conversation_id, 2147483647)
             ORDER BY e.tenant_id DESC, e.conversation_id DESC, e.version DESC
             LIMIT 1) AS h
     WHERE h.tenant_id = append_one.tenant_id
       AND h.conversation_id = append_one.conversation_id;
    version := coalesce(head.version, 0);
    is_plain := CASE expected_version WHEN -2 THEN true WHEN -1 THEN version > 0 ELSE expected_version = version END
                AND head.is_known IS NOT TRUE
                AND CASE WHEN may_be_deleted(head.event_type) THEN NOT conversation_is_deleted(tenant_id, conversation_id)
                         ELSE true
                    END;
    IF is_plain AND version > 0 AND user_id <> '' THEN
        is_plain := EXISTS (SELECT FROM may_append(tenant_id, conversation_id, user_id, event_type));
    END IF;
    IF NOT is_plain THEN
        -- Under the locks that are held, so this finds the same.
        SELECT g.outcome, g.position, g.version, g.timestamp, g.problem
          INTO outcome, position, version, timestamp, problem
          FROM append_group(
                   ARRAY[tenant_id], ARRAY[conversation_id], ARRAY[expected_version], ARRAY[1], ARRAY[1],
                   ARRAY[event_id], ARRAY[event_type], ARRAY[schema_version], ARRAY[actor], ARRAY[content],
                   ARRAY[metadata], ARRAY[user_id], lock_wait_ms
               ) AS g;
        RETURN;
    END IF;

    outcome := 'n';
    position := nextval('events_position');
    version := version + 1;
    timestamp := event_timestamp(head.timestamp);
    salt := uuid_send(gen_random_uuid());
    IF version = 1 THEN
        -- The log records the owner. Only an append for the whole tenant (a restored backup) may name another user.
        IF user_id <> '' THEN
            metadata := metadata || jsonb_build_object('eventstore.owner', user_id);
        END IF;
        IF metadata ? 'eventstore.owner' THEN
            PERFORM add_owner(tenant_id, conversation_id, metadata ->> 'eventstore.owner');
        END IF;
    END IF;
    content_text := content::text;
    metadata_text := metadata::text;
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, version, schema_version, conversation_id, event_id, tenant_id,
            event_type, actor, content, metadata, salt,
            rendered_event_digest(salt, position, timestamp, version, schema_version, conversation_id, event_id,
                                  tenant_id, event_type, actor, content_text, metadata_text));
    IF event_type IN ('conversation.shared', 'conversation.unshared') THEN
        PERFORM share_conversation(tenant_id, conversation_id, event_type, content);
    END IF;
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_one');
REVOKE ALL ON FUNCTION append_one FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION append_one', 'eventstore_writer');
