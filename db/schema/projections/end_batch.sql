-- Close the batch that begin_batch has opened in this transaction: move its checkpoints to its upper position, and note how
-- many events of the log it covered and how long its transaction took up to here.
CREATE FUNCTION end_batch(upper_position bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE checkpoints c
       SET position      = upper_position,
           updated_at    = clock_timestamp(),
           batch_events  = current_setting('eventstore.batch_events')::integer,
           batch_seconds = extract(epoch FROM clock_timestamp() - transaction_timestamp())
     WHERE c.projection = current_setting('eventstore.projection')
       AND c.stage = current_setting('eventstore.stage')
       AND c.partition = ANY (current_setting('eventstore.partitions')::smallint[])
       AND c.position < upper_position;
END
$$;

SELECT eventstore_set_owner('FUNCTION end_batch');
REVOKE ALL ON FUNCTION end_batch FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION end_batch', 'eventstore_projector');
