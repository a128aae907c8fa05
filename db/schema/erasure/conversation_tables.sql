-- The tables of a stage that projections fill, and live ones that inline projections fill, which no worker knows. Each with
-- the column that holds the conversation's id; null if its rows do not belong to one conversation of one tenant.
CREATE FUNCTION conversation_tables(stage text)
RETURNS TABLE (projection text, name text, relation regclass, conversation_column name, has_version boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT d.projection, c.relname::text, c.oid::regclass,
           CASE WHEN columns.names @> '{tenant_id,conversation_id}' THEN 'conversation_id'
                WHEN columns.names @> '{tenant_id,id}' THEN 'id'
           END::name,
           columns.names @> '{version}'
      FROM pg_class c
     CROSS JOIN LATERAL (
               SELECT array_agg(a.attname::text) AS names
                 FROM pg_attribute a
                WHERE a.attrelid = c.oid
                  AND NOT a.attisdropped
                  AND (a.attname = 'tenant_id'
                       OR a.attname IN ('conversation_id', 'id') AND a.atttypid = 'uuid'::regtype
                       OR a.attname = 'version' AND a.atttypid = 'integer'::regtype)
           ) AS columns
      LEFT JOIN projection_definitions d
        ON d.stage = conversation_tables.stage
       AND c.relname::text = ANY (d.tables)
     WHERE c.relnamespace = to_regnamespace(quote_ident(stage_schema(conversation_tables.stage)))
       AND c.relkind = 'r'
       AND (d.projection IS NOT NULL
            OR conversation_tables.stage = 'live'
               AND columns.names @> '{tenant_id,conversation_id}'
               AND c.relname NOT IN ('events', 'conversation_members', 'parked', 'answer_leases', 'blobs')
               -- enable_rls has made it when the table was created (projections/custom_projections.py).
               AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'open_to_owner'));
END;

SELECT eventstore_set_owner('FUNCTION conversation_tables');
REVOKE ALL ON FUNCTION conversation_tables FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION conversation_tables', 'eventstore_projector');
