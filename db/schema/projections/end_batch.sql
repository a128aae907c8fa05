-- Close the batch that begin_batch has opened in this transaction: move the checkpoints that it names to the upper
-- position, and note how many events of the log the batch covered and how long its transaction took up to here. A
-- checkpoint that another session has locked is left to that session, or to the next batch; if all are, wait for one.
--
-- A row that another session has just moved stays locked here although it is not moved again. So the wait comes after a
-- subtransaction that releases such locks, and is for one row by its key: a session that waits holds no other checkpoint.
CREATE FUNCTION end_batch(upper_position bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    positions bigint[] := current_setting('eventstore.checkpoints');
BEGIN
    UPDATE checkpoints c
       SET position      = upper_position,
           updated_at    = clock_timestamp(),
           batch_events  = current_setting('eventstore.batch_events')::integer,
           batch_seconds = extract(epoch FROM clock_timestamp() - transaction_timestamp())
      FROM (SELECT f.partition
              FROM checkpoints f
             WHERE f.projection = current_setting('eventstore.projection')
               AND f.stage = current_setting('eventstore.stage')
               AND f.position >= positions[f.partition + 1]
               AND f.position < upper_position
               FOR UPDATE SKIP LOCKED) AS free
     WHERE c.projection = current_setting('eventstore.projection')
       AND c.stage = current_setting('eventstore.stage')
       AND c.partition = free.partition;
    IF NOT FOUND AND current_setting('eventstore.partitions') = '{}' THEN -- this session has locked none
        RAISE no_data_found;
    END IF;
EXCEPTION
    WHEN no_data_found THEN
        PERFORM
           FROM checkpoints c
          WHERE c.projection = current_setting('eventstore.projection')
            AND c.stage = current_setting('eventstore.stage')
            AND c.partition = (SELECT f.partition
                                 FROM checkpoints f
                                WHERE f.projection = current_setting('eventstore.projection')
                                  AND f.stage = current_setting('eventstore.stage')
                                  AND f.position >= positions[f.partition + 1]
                                  AND f.position < upper_position
                                LIMIT 1)
            FOR UPDATE;
END
$$;

SELECT eventstore_set_owner('FUNCTION end_batch');
REVOKE ALL ON FUNCTION end_batch FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION end_batch', 'eventstore_projector');
