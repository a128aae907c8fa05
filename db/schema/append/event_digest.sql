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
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN rendered_event_digest(
    salt, "position", "timestamp", version, schema_version, conversation_id, id, tenant_id, event_type, actor,
    content::text, metadata::text
);

SELECT eventstore_set_owner('FUNCTION event_digest');
