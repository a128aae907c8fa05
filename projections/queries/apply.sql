-- name: begin_batch
SELECT b.lower_position, b.upper_position, b.events
  FROM begin_batch(%(projection)s, %(stage)s, %(definition_hash)s, %(partitions)s, %(size)s, %(until)s) AS b
 WHERE b.events > 0

-- name: end_batch
SELECT end_batch(%(upper)s)

-- name: small_batches
CALL pg_temp.apply_small_batches(%(projections)s, %(definition_hashes)s, %(partitions)s, %(size)s, '{}', '{}', '{}')

-- name: small_batches_procedure
-- Apply the next small batch of each projection, each in a transaction of its own. Return the position of each
-- afterwards and before, and the number of events in its batch. The horizon of the partitions is read once for all of them.
--
-- Plans are made once, here and in the fold functions, so they must not depend on how large the tables are at that
-- time: a small batch finds its rows by the keys.
CREATE OR REPLACE PROCEDURE pg_temp.apply_small_batches(
    projections       text[],
    definition_hashes text[],
    partitions        smallint[],
    size              integer,
    INOUT positions   bigint[],
    INOUT sizes       bigint[],
    INOUT lowers      bigint[]
)
LANGUAGE plpgsql AS $$
DECLARE
    horizon bigint := log_horizon(partitions);
    upper   bigint;
    events  bigint;
    lower   bigint;
BEGIN
    FOR number IN 1 .. cardinality(projections) LOOP
        PERFORM set_config('plan_cache_mode', 'force_generic_plan', true),
                set_config('enable_seqscan', 'off', true),
                set_config('enable_hashjoin', 'off', true),
                set_config('enable_mergejoin', 'off', true);
        SELECT b.upper_position, b.events, b.lower_position
          INTO upper, events, lower
          FROM begin_batch(projections[number], 'live', definition_hashes[number], partitions, size, horizon, horizon)
            AS b;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the projection % has no checkpoints yet', projections[number] USING ERRCODE = 'ES006';
        END IF;
        IF events > 0 THEN
            EXECUTE format('SELECT pg_temp.%I()', 'fold_' || projections[number]);
            PERFORM end_batch(upper);
        END IF;
        positions[number] := upper;
        sizes[number] := events;
        lowers[number] := lower;
        COMMIT;
    END LOOP;
END
$$

-- name: fold_function
-- A projection's text as a function of the session, which keeps the plans of its statements.
CREATE OR REPLACE FUNCTION pg_temp.{function}() RETURNS void
LANGUAGE plpgsql AS $fold$
BEGIN
{text}
END
$fold$

-- name: register
-- Store a projection's definition and checkpoints for a stage, unless they exist, and return the definition by which the
-- stage's tables are filled.
WITH made AS (
    INSERT INTO projection_definitions (projection, stage, definition_hash, text, tables)
    VALUES (%(projection)s, %(stage)s, %(definition_hash)s, %(text)s, %(tables)s)
    ON CONFLICT (projection, stage) DO NOTHING
    RETURNING definition_hash, text, tables
),
begun AS (
    INSERT INTO checkpoints (projection, stage, partition)
    SELECT %(projection)s, %(stage)s, s.partition
      FROM generate_series(0, 15) AS s (partition)
    ON CONFLICT (projection, stage, partition) DO NOTHING
)
SELECT m.definition_hash, m.text, m.tables FROM made m
 UNION ALL
SELECT t.definition_hash, t.text, t.tables
  FROM projection_definitions t
 WHERE t.projection = %(projection)s
   AND t.stage = %(stage)s

-- name: batch
-- The events of the open batch (see begin_batch): those of each partition from its own checkpoint on, except those of
-- parked conversations from the event that failed on. No projection sees administrative acts. Created once in each
-- session of a worker.
CREATE OR REPLACE TEMPORARY VIEW batch AS
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
  JOIN checkpoints c
    ON c.projection = current_setting('eventstore.projection')
   AND c.stage = current_setting('eventstore.stage')
   AND c.partition = ANY (current_setting('eventstore.partitions')::smallint[])
   AND c.partition = partition_of(e.conversation_id)
   AND c.position < e.position
 WHERE e.position > current_setting('eventstore.lower_position')::bigint
   AND e.position <= current_setting('eventstore.upper_position')::bigint
   AND e.conversation_id <> administration_id()
   AND NOT EXISTS (
           SELECT
             FROM parked p
            WHERE p.projection = current_setting('eventstore.projection')
              AND p.stage = current_setting('eventstore.stage')
              AND p.tenant_id = e.tenant_id
              AND p.conversation_id = e.conversation_id
              AND p.position <= e.position
       )

-- name: traced_events
-- The trace contexts of the appends of a batch, each with one of its conversations.
SELECT e.metadata ->> 'traceparent', min(e.conversation_id::text)
  FROM events e
 WHERE e.position > %(lower)s
   AND e.position <= %(upper)s
   AND partition_of(e.conversation_id) = ANY (%(partitions)s)
   AND jsonb_typeof(e.metadata -> 'traceparent') = 'string'
 GROUP BY 1
 ORDER BY min(e.position)
 LIMIT %(links)s

-- name: stage_path
-- Find, for the rest of the transaction, the tables of a stage before the live ones, and temporary ones before both.
SELECT set_config('search_path',
                  format('pg_temp, %%I, %%I', stage_schema(%(stage)s), stage_schema('live')),
                  true)
