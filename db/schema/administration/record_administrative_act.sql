-- Record an administrative act in the transaction of the act, as an event of the conversation administration_id(); return
-- its position.
--
-- tenant_id: the tenant that the act concerns; null for the whole system, whose acts are those of a tenant of its own.
-- act: what was done, such as key_revoked, which makes an event of the type eventstore.key_revoked.
-- details: a JSON object.
-- reason, actor: why and who; by default what the settings eventstore.reason and eventstore.actor say. Without an actor
-- it is the login of the session, which the metadata names in any case, with the program (eventstore.via).
--
-- Until the transaction ends, the horizon stays below the event, and other acts of the tenant wait: call it last. It
-- appends as append_one does (see there and docs/concepts/order.md), for sessions that may not append, such as the
-- projector's.
CREATE FUNCTION record_administrative_act(
    tenant_id text,
    act       text,
    details   jsonb DEFAULT '{}',
    reason    text DEFAULT NULL,
    actor     text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    tenant      text := coalesce(tenant_id, 'eventstore:system');
    head        record;
    must_notify boolean;
    salt        bytea := uuid_send(gen_random_uuid());
    id          uuid := gen_random_uuid();
    "position"  bigint;
    "timestamp" timestamptz;
    content     jsonb;
    metadata    jsonb;
    type        text := 'eventstore.' || act;
BEGIN
    IF login_is_bound() AND current_tenant() IS DISTINCT FROM tenant THEN
        PERFORM refuse_tenant(tenant);
    END IF;
    IF NOT coalesce(act ~ '^[a-z][a-z_]{1,80}$' AND jsonb_typeof(details) = 'object', false) THEN
        RAISE EXCEPTION 'the administrative act % has no valid name, or its details are not an object', quote_nullable(act)
            USING ERRCODE = 'ES005', HINT = 'Name it in lower case, with underscores, such as key_revoked.';
    END IF;
    content := details
        || jsonb_strip_nulls(jsonb_build_object(
               'reason', coalesce(nullif(reason, ''), nullif(current_setting('eventstore.reason', true), ''))));
    metadata := jsonb_strip_nulls(jsonb_build_object(
        'login', session_user,
        'via', nullif(current_setting('eventstore.via', true), '')));
    actor := left(coalesce(nullif(actor, ''), nullif(current_setting('eventstore.actor', true), ''),
                           'login:' || session_user), 255);
    PERFORM pg_advisory_xact_lock(conversation_lock_key(tenant, administration_id()));
    must_notify := register_append();
    SELECT e.version, e.timestamp
      INTO head
      FROM events e
     WHERE e.tenant_id = tenant
       AND e.conversation_id = administration_id()
     ORDER BY e.version DESC
     LIMIT 1;
    position := nextval('events_position');
    timestamp := event_timestamp(head.timestamp);
    INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id,
                        event_type, actor, content, metadata, salt, digest)
    VALUES (position, timestamp, coalesce(head.version, 0) + 1, 1, administration_id(), id, tenant,
            type, actor, content, metadata, salt,
            event_digest(salt, position, timestamp, coalesce(head.version, 0) + 1, 1::smallint,
                         administration_id(), id, tenant, type, actor, content, metadata));
    IF must_notify THEN
        PERFORM pg_notify(notify_channel(), '');
    END IF;
    RETURN position;
END
$$;

SELECT eventstore_set_owner('FUNCTION record_administrative_act');
REVOKE ALL ON FUNCTION record_administrative_act FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION record_administrative_act', 'eventstore_app', 'eventstore_projector');
