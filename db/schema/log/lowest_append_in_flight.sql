-- The lowest position after which an append in progress may still take one; null if none is in progress.
CREATE FUNCTION lowest_append_in_flight(reference bigint) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    -- A lock's key is the low half of a position near the reference: locks just above it are routine.
    SELECT min(lowest_append_in_flight.reference + low_32_bits(l.objid::bigint - lowest_append_in_flight.reference))
      FROM pg_locks l
     WHERE l.locktype = 'advisory'
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND l.classid = 'events_position'::regclass::oid
       AND l.objsubid = 2
       AND l.granted;
END;

SELECT eventstore_own('FUNCTION lowest_append_in_flight');
REVOKE ALL ON FUNCTION lowest_append_in_flight FROM PUBLIC;
