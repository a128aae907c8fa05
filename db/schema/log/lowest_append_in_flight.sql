-- The lowest registered position of appends in progress, which take positions above it; null if none is in progress.
--
-- partitions: only appends to conversations of these partitions count; null stands for all. An append has locked its
-- conversations before it registers (register_append), and conversation_lock_key contains the partition. A session that
-- shows no such lock is ending its transaction; it counts for all partitions. pg_locks shows one state of all advisory
-- locks.
CREATE FUNCTION lowest_append_in_flight(reference bigint, partitions smallint[] DEFAULT NULL) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT min(a.position)
      FROM (SELECT -- A lock's key is the low half of a position near the reference: locks just above it are routine.
                   min(lowest_append_in_flight.reference
                       + low_32_bits(l.objid::bigint - lowest_append_in_flight.reference))
                       FILTER (WHERE l.objsubid = 2) AS position,
                   array_agg((l.objid::bigint & 15)::smallint) FILTER (WHERE l.objsubid = 1) AS partitions
              FROM pg_locks l
             WHERE l.locktype = 'advisory'
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
               AND (l.objsubid = 2 AND l.classid = 'events_position'::regclass::oid
                    OR l.objsubid = 1 AND lowest_append_in_flight.partitions IS NOT NULL)
               AND l.granted
             -- A prepared transaction has no process.
             GROUP BY l.pid, CASE WHEN l.pid IS NULL THEN l.virtualtransaction END) AS a
     WHERE a.partitions IS NULL
        OR a.partitions && lowest_append_in_flight.partitions;
END;

SELECT eventstore_set_owner('FUNCTION lowest_append_in_flight');
REVOKE ALL ON FUNCTION lowest_append_in_flight FROM PUBLIC;
