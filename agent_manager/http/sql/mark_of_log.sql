-- A mark that changes whenever an event may have become visible: the last position that was handed out, and the appends
-- in flight. An append takes its gate lock, then a position, commits, and lets go of the lock (docs/concepts/order.md). So
-- an event that becomes visible after this look has its lock here and not in a later look, or a position beyond. For that
-- the position must be read before the locks: the lateral query cannot begin without it.
--
-- The horizon would not do: it stands still while any append is in flight, and events above it are visible already.
-- On a standby there are no locks to see; there it is how far it has replayed.
SELECT concat_ws('|', pg_postmaster_start_time(), last.position, in_flight.appends,
                 CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END)
  FROM (SELECT last_position() OFFSET 0) AS last (position)
 CROSS JOIN LATERAL (SELECT string_agg(concat_ws(' ', l.objid, l.virtualtransaction), ','
                                       ORDER BY l.virtualtransaction, l.objid)
                       FROM pg_locks l
                      WHERE last.position IS NOT NULL
                        AND l.locktype = 'advisory'
                        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                        AND l.classid = 'events_position'::regclass::oid
                        AND l.objsubid = 2
                        AND l.granted) AS in_flight (appends)
