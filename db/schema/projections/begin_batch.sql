-- Open a batch in the caller's transaction: lock the checkpoints of the partitions, so that a second worker waits, and fix
-- the range of positions that the relation "batch" shows. Without checkpoints it returns no row; without events, the
-- range is empty.
--
-- The projection must be the one by which the tables are filled; which one that is can change during the wait for the
-- locks.
--
-- horizon: log_horizon(partitions), if the caller has read it; null reads it once the checkpoints are locked.
CREATE FUNCTION begin_batch(
    projection      text,
    stage           text,
    definition_hash text,
    partitions      smallint[],
    size            integer,
    until           bigint,
    horizon         bigint DEFAULT NULL
) RETURNS TABLE (lower_position bigint, upper_position bigint, events bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    range_lower bigint;
    range_upper bigint;
BEGIN
    SELECT min(locked.position)
      INTO lower_position
      FROM (SELECT c.position
              FROM checkpoints c
             WHERE c.projection = begin_batch.projection
               AND c.stage = begin_batch.stage
               AND c.partition = ANY (begin_batch.partitions)
             ORDER BY c.partition
               FOR UPDATE) AS locked;
    IF lower_position IS NULL THEN
        RETURN;
    END IF;
    IF begin_batch.stage = 'live'
       AND EXISTS (SELECT FROM paused_projections p WHERE p.projection = begin_batch.projection) THEN
        RAISE EXCEPTION 'the projection % is paused', projection USING ERRCODE = 'ES009';
    END IF;
    IF NOT EXISTS (
           SELECT
             FROM projection_definitions t
            WHERE t.projection = begin_batch.projection
              AND t.stage = begin_batch.stage
              AND t.definition_hash = begin_batch.definition_hash) THEN
        RAISE EXCEPTION 'the % tables of the projection % were filled by another definition', stage, projection
            USING ERRCODE = 'ES006';
    END IF;
    until := least(until, coalesce(horizon, log_horizon(begin_batch.partitions)));
    -- A projection's statements scan the range several times: it covers no more than the partitions' own events.
    SELECT coalesce(max(next.position), lower_position), count(*),
           min(next.position) FILTER (WHERE next.partition = ANY (begin_batch.partitions)) - 1,
           max(next.position) FILTER (WHERE next.partition = ANY (begin_batch.partitions))
      INTO upper_position, events, range_lower, range_upper
      FROM (SELECT e.position, partition_of(e.conversation_id) AS partition
              FROM events e
             WHERE e.position > lower_position
               AND e.position <= begin_batch.until
             ORDER BY e.position
             LIMIT begin_batch.size) AS next;
    IF events > 0 THEN
        PERFORM set_config('eventstore.projection', begin_batch.projection, true),
                set_config('eventstore.stage', begin_batch.stage, true),
                set_config('eventstore.partitions', begin_batch.partitions::text, true),
                set_config('eventstore.batch_events', events::text, true),
                set_config('eventstore.lower_position', coalesce(range_lower, upper_position)::text, true),
                set_config('eventstore.upper_position', coalesce(range_upper, upper_position)::text, true);
    END IF;
    RETURN NEXT;
END
$$;

SELECT eventstore_set_owner('FUNCTION begin_batch');
REVOKE ALL ON FUNCTION begin_batch FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION begin_batch', 'eventstore_projector');
