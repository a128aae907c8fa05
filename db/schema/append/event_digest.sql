-- The digest of an event. Its byte format never changes: docs/concepts/digest.md documents it, with test vectors.
--
-- array_send writes the texts as the format has them, each after its length, behind a header of 20 bytes. So each text is
-- rendered and copied once, and the planner can replace a call by the expression.
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
LANGUAGE sql STABLE PARALLEL SAFE
RETURN sha256(
    salt
    || int8send("position")
    || timestamptz_send("timestamp")
    || int4send(version)
    || int2send(schema_version)
    || uuid_send(conversation_id)
    || uuid_send(id)
    || substr(array_send(ARRAY[
           convert_to(tenant_id, 'UTF8'), convert_to(event_type, 'UTF8'), convert_to(actor, 'UTF8'),
           convert_to(content::text, 'UTF8'), convert_to(metadata::text, 'UTF8')
       ]), 21)
);

SELECT eventstore_set_owner('FUNCTION event_digest');
