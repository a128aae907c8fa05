-- The digest of an event, of which content and metadata are canonical JSON texts already (content::text). The planner
-- replaces a call by this expression, in which each text occurs twice; so an append renders its JSON once.
CREATE FUNCTION rendered_event_digest(
    salt            bytea,
    "position"      bigint,
    "timestamp"     timestamptz,
    version         integer,
    schema_version  smallint,
    conversation_id uuid,
    id              uuid,
    tenant_id       text,
    event_type      text,
    actor           text,
    content         text,
    metadata        text
) RETURNS bytea
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN sha256(
    salt
    || int8send("position")
    || timestamptz_send("timestamp")
    || int4send(version)
    || int2send(schema_version)
    || uuid_send(conversation_id)
    || uuid_send(id)
    || digest_text(tenant_id)
    || digest_text(event_type)
    || digest_text(actor)
    || digest_text(content)
    || digest_text(metadata)
);

SELECT eventstore_set_owner('FUNCTION rendered_event_digest');
