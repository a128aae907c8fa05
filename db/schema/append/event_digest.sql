-- The digest of an event. Its byte format never changes: docs/concepts/digest.md documents it, with test vectors.
CREATE FUNCTION event_digest(
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
    content         jsonb,
    metadata        jsonb
) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
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
    || digest_text(content::text)
    || digest_text(metadata::text)
);

SELECT eventstore_set_owner('FUNCTION event_digest');
