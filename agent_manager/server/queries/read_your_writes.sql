-- name: tables_change_token
-- The position that the projections have applied, and a change token of their tables. It changes when a partition
-- advances, rows of it are made anew because events were erased, a table is truncated or swapped, or parked events are
-- applied.
SELECT applied.position,
       md5(concat_ws('|',
           (SELECT string_agg(concat(c.position, '@', c.updated_at), ' ' ORDER BY c.projection, c.partition)
              FROM checkpoints c
             WHERE c.projection = ANY (%(projections)s)
               AND c.stage = 'live'),
           (SELECT string_agg(pg_relation_filenode(to_regclass(t.name))::text, ' ' ORDER BY t.name)
              FROM unnest(%(tables)s::text[]) AS t (name)),
           (SELECT string_agg(format('%%s %%s %%s', p.projection, p.conversation_id, p.position), ' '
                              ORDER BY p.projection, p.tenant_id, p.conversation_id)
              FROM parked p
             WHERE p.projection = ANY (%(projections)s)
               AND p.stage = 'live')))
  FROM ({position}) AS applied (position)

-- name: log_change_token
-- A token that changes whenever an event may have become visible: the last assigned position and the appends in flight.
-- An append takes its gate lock, takes a position, commits, and releases the lock (docs/concepts/order.md). So the append
-- of an event that becomes visible after this query either holds its lock now and not at the next query, or has a later
-- position. For that the position must be read before the locks: the lateral query cannot start without it.
--
-- The horizon would not do: it stands still while any append is in flight, and events above it are visible already.
-- A standby has no such locks; its token is the replayed WAL position.
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
