-- The next batch of each of some projections, one after the other, all in the transaction of the call: how far each is
-- afterwards, and the events that it went over. For each of them it does what begin_batch does, with one lock, one look
-- at the horizon, and one search for the end of the batch where they all stand at the same position.
CREATE OR REPLACE FUNCTION pg_temp.apply_quickly(projections text[], sources text[], shares smallint[], size integer)
RETURNS TABLE (applied_position bigint, applied_events bigint)
LANGUAGE plpgsql AS $$
DECLARE
    lowers  bigint[];
    uppers  bigint[];
    sizes   bigint[];
    horizon bigint;
    upper   bigint;
    events  bigint;
BEGIN
    SELECT array_agg(coalesce(l.position, 0) ORDER BY p.number)
      INTO lowers
      FROM unnest(projections) WITH ORDINALITY AS p (name, number)
      LEFT JOIN (
               SELECT locked.projection, min(locked.position) AS position
                 FROM (SELECT c.projection, c.position
                         FROM checkpoints c
                        WHERE c.projection = ANY (projections)
                          AND c.stage = 'live'
                          AND c.share = ANY (shares)
                        ORDER BY c.projection, c.share
                          FOR UPDATE) AS locked
                GROUP BY locked.projection
           ) AS l ON l.projection = p.name;
    IF EXISTS (
           SELECT
             FROM unnest(projections, sources) AS p (name, source)
            WHERE NOT EXISTS (
                      SELECT
                        FROM projection_texts t
                       WHERE t.projection = p.name
                         AND t.stage = 'live'
                         AND t.source = p.source)) THEN
        RAISE EXCEPTION 'the tables of one of the projections % are made by another text', projections
            USING ERRCODE = 'ES006';
    END IF;
    horizon := log_horizon();
    FOR number IN 1 .. cardinality(projections) LOOP
        IF number = 1 OR lowers[number] <> lowers[number - 1] THEN
            SELECT max(next.position), count(*)
              INTO upper, events
              FROM (SELECT e.position
                      FROM events e
                     WHERE e.position > lowers[number]
                       AND e.position <= horizon
                     ORDER BY e.position
                     LIMIT size) AS next;
        END IF;
        uppers[number] := coalesce(upper, lowers[number]);
        sizes[number] := events;
        IF events > 0 THEN
            PERFORM set_config('eventstore.projection', projections[number], true),
                    set_config('eventstore.stage', 'live', true),
                    set_config('eventstore.shares', shares::text, true),
                    set_config('eventstore.lower_position', lowers[number]::text, true),
                    set_config('eventstore.upper_position', upper::text, true);
            EXECUTE format('SELECT pg_temp.%I()', 'fold_' || projections[number]);
        END IF;
    END LOOP;
    UPDATE checkpoints c
       SET position = p.upper,
           updated_at = clock_timestamp()
      FROM unnest(projections, uppers) AS p (name, upper)
     WHERE c.projection = p.name
       AND c.stage = 'live'
       AND c.share = ANY (shares)
       AND c.position < p.upper;
    RETURN QUERY SELECT * FROM unnest(uppers, sizes);
END
$$
