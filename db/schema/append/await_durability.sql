-- Make the commit of a transaction that changes nothing durable, for an event that is stored already: the transaction
-- that stored it may be committed here and not yet on a synchronous standby, if its backend was ended while it waited.
-- A transaction that writes any record to the WAL is flushed and waits for the standby (see docs/concepts/order.md).
CREATE FUNCTION await_durability() RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_logical_emit_message(true, 'eventstore', '');
END
$$;

SELECT eventstore_set_owner('FUNCTION await_durability');
REVOKE ALL ON FUNCTION await_durability FROM PUBLIC;
