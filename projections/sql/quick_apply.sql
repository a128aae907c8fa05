-- The next small batch of each of some projections, one after the other, each in a transaction of its own. It returns how
-- far each is afterwards, and the number of events in its batch. The horizon of the log is read once for all of them.
-- Plans are made once, here and in the folds, so they must not depend on how large the tables are at that time: a small
-- batch finds its rows by the keys.
CREATE OR REPLACE PROCEDURE pg_temp.apply_quickly(
    projections text[],
    sources     text[],
    shares      smallint[],
    size        integer,
    INOUT positions bigint[],
    INOUT sizes     bigint[]
)
LANGUAGE plpgsql AS $$
DECLARE
    horizon bigint := log_horizon();
    upper   bigint;
    events  bigint;
BEGIN
    FOR number IN 1 .. cardinality(projections) LOOP
        PERFORM set_config('plan_cache_mode', 'force_generic_plan', true),
                set_config('enable_seqscan', 'off', true),
                set_config('enable_hashjoin', 'off', true),
                set_config('enable_mergejoin', 'off', true);
        SELECT b.upper_position, b.events
          INTO upper, events
          FROM begin_batch(projections[number], 'live', sources[number], shares, size, horizon, horizon) AS b;
        IF events > 0 THEN
            EXECUTE format('SELECT pg_temp.%I()', 'fold_' || projections[number]);
            UPDATE checkpoints c
               SET position = upper,
                   updated_at = clock_timestamp()
             WHERE c.projection = projections[number]
               AND c.stage = 'live'
               AND c.share = ANY (shares)
               AND c.position < upper;
        END IF;
        positions[number] := coalesce(upper, 0);
        sizes[number] := coalesce(events, 0);
        COMMIT;
    END LOOP;
END
$$
