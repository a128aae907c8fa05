-- name: batch_events
SELECT b.position, b.timestamp, b.version, b.schema_version, b.conversation_id, b.id, b.tenant_id, b.event_type,
       b.actor, b.content, b.metadata, b.salt, b.digest
  FROM batch b
 ORDER BY b.position

-- name: lock_setup
-- Two processes that create the same tables at the same time would fail. The lock ends with the transaction.
SELECT pg_advisory_xact_lock('projection_definitions'::regclass::oid::bigint::bit(32)::integer, 0)

-- name: missing_tables
SELECT t.name
  FROM unnest(%(tables)s::text[]) AS t (name)
 WHERE NOT EXISTS (
           SELECT
             FROM pg_class c
            WHERE c.relname = t.name
              AND c.relnamespace = stage_schema('live')::regnamespace
       )

-- name: adopt_table
SELECT eventstore_set_owner(format('TABLE %%I', %(table)s::text)),
       eventstore_grant(format('SELECT ON TABLE %%I', %(table)s::text), 'eventstore_reader'),
       eventstore_grant(format('SELECT, INSERT, UPDATE, DELETE ON TABLE %%I', %(table)s::text), 'eventstore_projector'),
       enable_rls(format('%%I', %(table)s::text)::regclass)
