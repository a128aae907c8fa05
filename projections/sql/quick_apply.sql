-- The next batch of each of some projections, one after the other, each in a transaction of its own: how far each is
-- afterwards, and the events that it went over. For each it does what begin_batch does, but looks only once how far the
-- log is final, and where they all stand at the same position, only once for the end of the batch. Plans are made once,
-- here and in the folds, so they must not rest on how large the tables are just then: a small batch finds its rows by
-- the keys.
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
    horizon  bigint := log_horizon();
    lower    bigint;
    previous bigint;
    upper    bigint;
    events   bigint;
BEGIN
    FOR number IN 1 .. cardinality(projections) LOOP
        PERFORM set_config('plan_cache_mode', 'force_generic_plan', true),
                set_config('enable_seqscan', 'off', true),
                set_config('enable_hashjoin', 'off', true),
                set_config('enable_mergejoin', 'off', true);
        SELECT coalesce(min(locked.position), 0)
          INTO lower
          FROM (SELECT c.position
                  FROM checkpoints c
                 WHERE c.projection = projections[number]
                   AND c.stage = 'live'
                   AND c.share = ANY (shares)
                 ORDER BY c.share
                   FOR UPDATE) AS locked;
        IF NOT EXISTS (
               SELECT
                 FROM projection_texts t
                WHERE t.projection = projections[number]
                  AND t.stage = 'live'
                  AND t.source = sources[number]) THEN
            RAISE EXCEPTION 'the live tables of the projection % were filled by another definition', projections[number]
                USING ERRCODE = 'ES006';
        END IF;
        IF previous IS DISTINCT FROM lower THEN
            SELECT coalesce(max(next.position), lower), count(*)
              INTO upper, events
              FROM (SELECT e.position
                      FROM events e
                     WHERE e.position > lower
                       AND e.position <= horizon
                     ORDER BY e.position
                     LIMIT size) AS next;
            previous := lower;
        END IF;
        IF events > 0 THEN
            PERFORM set_config('eventstore.projection', projections[number], true),
                    set_config('eventstore.stage', 'live', true),
                    set_config('eventstore.shares', shares::text, true),
                    set_config('eventstore.lower_position', lower::text, true),
                    set_config('eventstore.upper_position', upper::text, true);
            EXECUTE format('SELECT pg_temp.%I()', 'fold_' || projections[number]);
            UPDATE checkpoints c
               SET position = upper,
                   updated_at = clock_timestamp()
             WHERE c.projection = projections[number]
               AND c.stage = 'live'
               AND c.share = ANY (shares)
               AND c.position < upper;
        END IF;
        positions[number] := upper;
        sizes[number] := events;
        COMMIT;
    END LOOP;
END
$$
