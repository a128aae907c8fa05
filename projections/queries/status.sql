-- name: status_log
-- The size of the log.
SELECT (SELECT count(*) FROM events) AS events,
       (SELECT coalesce(max(e.position), 0) FROM events e) AS last_position,
       (SELECT count(DISTINCT (e.tenant_id, e.conversation_id)) FROM events e) AS conversations,
       pg_total_relation_size('events') AS bytes,
       current_setting('server_version') AS server_version,
       pg_notification_queue_usage() AS notify_queue_usage

-- name: status_projections
SELECT c.projection,
       min(c.position) AS position,
       max(c.updated_at) AS updated_at,
       min(t.definition_hash) AS definition_hash,
       (SELECT count(*) FROM events e WHERE e.position > min(c.position)) AS lag_events,
       coalesce((SELECT extract(epoch FROM greatest(clock_timestamp() - e.timestamp, '0 s'))
                   FROM events e
                  WHERE e.position > min(c.position)
                  ORDER BY e.position
                  LIMIT 1), 0)::float8 AS lag_seconds,
       (SELECT count(*) FROM parked p WHERE p.projection = c.projection AND p.stage = 'live') AS parked,
       (SELECT s.paused_at FROM paused_projections s WHERE s.projection = c.projection) AS paused_at
  FROM checkpoints c
  JOIN projection_definitions t
    ON t.projection = c.projection
   AND t.stage = c.stage
 WHERE c.stage = 'live'
 GROUP BY c.projection
 ORDER BY c.projection

-- name: log_state
-- The end of the log, how many of its positions may still change, and how full the queue of notifications is.
SELECT l.last_position, greatest(l.last_position - log_horizon(), 0), pg_notification_queue_usage()
  FROM (SELECT last_position() AS last_position OFFSET 0) AS l

-- name: lags
-- Return the lag of the live tables of projections behind the log, in a time that does not grow with the lag: exact
-- if no more than a number of events follow the lowest checkpoint; beyond, the events are counted by positions,
-- which have gaps.
SELECT p.name,
       CASE WHEN w.events < %(exact)s THEN w.unapplied ELSE last_position() - c.lowest END AS events,
       coalesce(extract(epoch FROM greatest(clock_timestamp() - w.since, '0 s')), 0)::float8 AS seconds,
       (SELECT count(*) FROM parked k WHERE k.projection = p.name AND k.stage = 'live') AS parked,
       (SELECT avg(n.position)::float8 FROM checkpoints n WHERE n.projection = p.name AND n.stage = 'next') AS rebuilt,
       (SELECT s.paused_at FROM paused_projections s WHERE s.projection = p.name) AS paused_at
  FROM unnest(%(projections)s::text[]) AS p (name)
 CROSS JOIN LATERAL (SELECT min(coalesce(c.position, 0)) AS lowest,
                            array_agg(coalesce(c.position, 0) ORDER BY s.partition) AS positions
                       FROM generate_series(0, 15) AS s (partition)
                       LEFT JOIN checkpoints c
                         ON c.projection = p.name
                        AND c.stage = 'live'
                        AND c.partition = s.partition) AS c
 CROSS JOIN LATERAL (SELECT count(*) AS events,
                            count(*) FILTER (WHERE NOT e.is_applied) AS unapplied,
                            coalesce(min(e.timestamp) FILTER (WHERE NOT e.is_applied), max(e.timestamp)
                                     FILTER (WHERE e.number = %(exact)s)) AS since
                       FROM (SELECT e.timestamp,
                                    e.position <= c.positions[1 + partition_of(e.conversation_id)] AS is_applied,
                                    row_number() OVER (ORDER BY e.position) AS number
                               FROM events e
                              WHERE e.position > c.lowest
                              ORDER BY e.position
                              LIMIT %(exact)s) AS e) AS w

-- name: status_workers
-- The workers and their partitions.
SELECT l.pid,
       coalesce(a.application_name, '') AS application,
       coalesce(a.client_addr::text, 'local') AS client,
       coalesce(array_agg(l.objid::integer ORDER BY l.objid) FILTER (WHERE l.objid < 16), '{}') AS partitions
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.classid = 'checkpoints'::regclass::oid
   AND l.objid <= 16
   AND l.objsubid = 2
   AND l.granted
 GROUP BY l.pid, a.application_name, a.client_addr
 ORDER BY l.pid

-- name: status_appends
-- The appends in flight, by the gate that they hold. One that stays open long hides all later events from readers.
SELECT l.pid,
       coalesce(a.usename, '') AS login,
       coalesce(a.application_name, '') AS application,
       CASE WHEN l.pid IS NULL THEN 'prepared transaction' ELSE coalesce(a.state, 'unknown') END AS state,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS seconds
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.classid = 'events_position'::regclass::oid
   AND l.objsubid = 2
   AND l.granted
 ORDER BY seconds DESC

-- name: status_standby
-- Return, from the standby, the position that the projections have applied, and that of the write-ahead log up to which it has
-- replayed.
SELECT pg_is_in_recovery(), ({position}),
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text

-- name: status_standby_lag
-- Return, from the primary, the number of events between the position of the standby and that of the primary, the age of the first of them,
-- and the bytes of the write-ahead log that the standby has not replayed.
SELECT (SELECT count(*) FROM events e WHERE e.position > %(position)s AND e.position <= applied.position),
       coalesce((SELECT extract(epoch FROM greatest(clock_timestamp() - e.timestamp, '0 s'))
                   FROM events e
                  WHERE e.position > %(position)s AND e.position <= applied.position
                  ORDER BY e.position
                  LIMIT 1), 0)::float8,
       CASE WHEN NOT pg_is_in_recovery()
            THEN greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), %(replayed)s::pg_lsn), 0)::bigint END
  FROM ({position}) AS applied (position)

-- name: lag_seconds
-- The age of the oldest event above a position.
SELECT coalesce((SELECT extract(epoch FROM greatest(clock_timestamp() - e.timestamp, '0 s'))
                   FROM events e
                  WHERE e.position > %(position)s
                  ORDER BY e.position
                  LIMIT 1), 0)::float8

-- name: position
-- The position that all projections have applied. A projection without checkpoints has applied nothing.
SELECT CASE
           WHEN count(DISTINCT projection) = (SELECT count(DISTINCT p.name) FROM unnest(%(projections)s::text[]) AS p (name))
               THEN coalesce(min(position), 0)
           ELSE 0
       END
  FROM checkpoints
 WHERE projection = ANY (%(projections)s)
   AND stage = 'live'
   AND partition = ANY (%(partitions)s)
