-- The batch of a conversation as it was: what the view of the same name is for a worker (batch.sql). An inline append may
-- have left one in a session that a pooler lends; it is back when this is rolled back.
DROP VIEW IF EXISTS pg_temp.batch;

CREATE TEMPORARY TABLE batch (
    position        bigint,
    timestamp       timestamptz,
    version         integer,
    schema_version  smallint,
    conversation_id uuid,
    id              uuid,
    tenant_id       varchar(255) COLLATE "C",
    event_type      varchar(100) COLLATE "C",
    actor           varchar(255),
    content         jsonb,
    metadata        jsonb
)
