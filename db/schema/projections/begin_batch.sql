-- Open a batch in the caller's transaction: fix the range of positions that the relation "batch" shows, and lock the
-- checkpoints of the partitions that have events to apply in it. Without checkpoints it returns no row; without events,
-- the range is empty.
--
-- A batch may cover many events of few partitions, such as those of one tenant's import. A session that applies the
-- events of other partitions meanwhile, such as a read of one's own writes, does not wait for it: partitions without
-- events in the range are not locked, and those that another session has locked are left to that session. Only if no
-- other is left, it waits for one of them, and releases it again: the next range may need others. So no session waits
-- for a checkpoint while it holds another one of the projection, and no two wait for each other.
--
-- end_batch moves the checkpoints of the locked partitions, and of those without events: no event of theirs is between
-- the checkpoint that was read here and the end of the range, so any checkpoint between the two may move there.
--
-- The projection must be the one by which the tables are filled; which one that is can change during the wait for a
-- lock, and so can the checkpoints: after a wait, or if one was set back, the range is taken again. It must not be
-- paused; a pause waits for all locks of checkpoints.
--
-- horizon: log_horizon(partitions), if the caller has read it; null reads it here.
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
    positions   bigint[];    -- the checkpoint of partition p at index p + 1; null for partitions of others
    due         smallint[];  -- the partitions with events to apply in the range
    taken       smallint[];  -- those of them whose checkpoints are locked here
    range_lower bigint;
    range_upper bigint;
    is_set_back boolean;     -- under its lock, a checkpoint is lower than it was read before
    missed      smallint;
BEGIN
    until := least(until, coalesce(horizon, log_horizon(begin_batch.partitions)));
    LOOP
        -- Read the checkpoints.
        SELECT min(c.position), array_agg(c.position ORDER BY p.partition)
          INTO lower_position, positions
          FROM generate_series(0, 15) AS p (partition)
          LEFT JOIN checkpoints c
            ON c.projection = begin_batch.projection
           AND c.stage = begin_batch.stage
           AND c.partition = p.partition
           AND c.partition = ANY (begin_batch.partitions);
        IF lower_position IS NULL THEN
            RETURN;
        END IF;
        -- Find the events of the batch, and the range of those to apply: a projection's statements scan it several times.
        SELECT coalesce(max(next.position), lower_position), count(*),
               min(next.position) FILTER (WHERE next.position > positions[next.partition + 1]) - 1,
               max(next.position) FILTER (WHERE next.position > positions[next.partition + 1]),
               array_agg(DISTINCT next.partition) FILTER (WHERE next.position > positions[next.partition + 1])
          INTO upper_position, events, range_lower, range_upper, due
          FROM (SELECT e.position, partition_of(e.conversation_id) AS partition
                  FROM events e
                 WHERE e.position > lower_position
                   AND e.position <= begin_batch.until
                 ORDER BY e.position
                 LIMIT begin_batch.size) AS next;
        -- Lock the checkpoints of the partitions that have events to apply; if others have locked all, wait for one.
        SELECT coalesce(array_agg(free.partition), '{}'), bool_or(free.position < positions[free.partition + 1])
          INTO taken, is_set_back
          FROM (SELECT c.partition, c.position
                  FROM checkpoints c
                 WHERE c.projection = begin_batch.projection
                   AND c.stage = begin_batch.stage
                   AND c.partition = ANY (due)
                   FOR UPDATE SKIP LOCKED) AS free;
        IF taken = '{}' AND due IS NOT NULL THEN
            BEGIN
                PERFORM
                   FROM checkpoints c
                  WHERE c.projection = begin_batch.projection
                    AND c.stage = begin_batch.stage
                    AND c.partition = due[1]
                    FOR UPDATE;
                RAISE no_data_found;
            EXCEPTION
                WHEN no_data_found THEN -- the lock is released
            END;
        ELSIF is_set_back IS NOT TRUE THEN
            EXIT;
        END IF;
    END LOOP;
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
    IF events > 0 THEN
        FOREACH missed IN ARRAY coalesce(due, '{}') LOOP
            IF missed <> ALL (taken) THEN
                positions[missed + 1] := NULL;
            END IF;
        END LOOP;
        PERFORM set_config('eventstore.projection', begin_batch.projection, true),
                set_config('eventstore.stage', begin_batch.stage, true),
                set_config('eventstore.partitions', taken::text, true),
                set_config('eventstore.checkpoints', positions::text, true),
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
