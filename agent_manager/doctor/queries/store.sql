-- What the doctor looks for in the log and its projections, as the role eventstore_projector. The rows are as in server.sql.

-- name: lag
-- Projections that have not applied an old event.
SELECT CASE WHEN max(p.seconds) >= {critical} THEN 'critical' ELSE 'warning' END,
       format('the log is at position %s, and up to %s ahead of %s', last_position(),
              make_interval(secs => round(max(p.seconds))),
              string_agg(format('%s (at %s%s)', p.name, p.position, CASE WHEN p.is_paused THEN ', paused' END), ', '
                         ORDER BY p.name)),
       CASE WHEN bool_and(p.is_paused) THEN format('eventstore resume %s', string_agg(p.name, ' ' ORDER BY p.name))
            ELSE 'eventstore status shows the workers: start one (eventstore up, eventstore project), or more if all are busy'
       END
  FROM (SELECT n.name, coalesce(c.position, 0) AS position,
               EXISTS (SELECT FROM paused_projections s WHERE s.projection = n.name) AS is_paused,
               (SELECT extract(epoch FROM clock_timestamp() - e.timestamp)::float8
                  FROM events e
                 WHERE e.position > coalesce(c.position, 0)
                 ORDER BY e.position
                 LIMIT 1) AS seconds
          FROM unnest({projections}::text[]) AS n (name)
          LEFT JOIN (SELECT k.projection, min(k.position) AS position
                       FROM checkpoints k
                      WHERE k.stage = 'live'
                      GROUP BY k.projection) AS c ON c.projection = n.name) AS p
 WHERE p.seconds >= {warning}
HAVING count(*) > 0

-- name: parked
SELECT 'warning', format('%s has parked %s conversation(s): %s', p.projection, count(*), max(p.error)),
       'eventstore parked shows why; remove the cause, then eventstore retry'
  FROM parked p
 WHERE p.stage = 'live'
 GROUP BY p.projection

-- name: workers
-- No worker, or one that is connected and does not advance.
WITH worker AS (
    SELECT DISTINCT l.pid
      FROM pg_locks l
     WHERE l.locktype = 'advisory'
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND l.classid = 'checkpoints'::regclass::oid
       AND l.objid <= 16
       AND l.objsubid = 2
       AND l.granted
)
SELECT 'warning', 'no worker is running: the read tables are not kept up to date', 'eventstore up, or eventstore project'
 WHERE NOT EXISTS (SELECT FROM worker)
 UNION ALL
SELECT 'critical',
       format('%s worker(s) are connected, but do not advance, for up to %s: %s', (SELECT count(*) FROM worker),
              make_interval(secs => round(max(p.seconds))), string_agg(p.name, ', ' ORDER BY p.name)),
       'see the checks locks and disk, and the output of the worker; then end its session, so that it begins anew: '
       || (SELECT string_agg(format('SELECT pg_terminate_backend(%s)', w.pid), '; ') FROM worker w)
  FROM (SELECT c.projection AS name, min(c.position) AS position,
               extract(epoch FROM clock_timestamp() - max(c.updated_at))::float8 AS seconds
          FROM checkpoints c
         WHERE c.stage = 'live'
           AND NOT EXISTS (SELECT FROM paused_projections s WHERE s.projection = c.projection)
         GROUP BY c.projection) AS p
 WHERE p.seconds >= {warning}
   AND EXISTS (SELECT FROM worker)
   AND EXISTS (SELECT FROM events e
                WHERE e.position > p.position
                  AND e.timestamp < clock_timestamp() - make_interval(secs => {warning}))
HAVING count(*) > 0

-- name: future_events
SELECT 'warning',
       format('the newest event is from %s, which is %s in the future: the server''s clock was set back', n.timestamp,
              date_trunc('second', n.timestamp - clock_timestamp())),
       'synchronise the clock of the server; later events of that conversation get the same time until then'
  FROM (SELECT e.timestamp FROM events e ORDER BY e.timestamp DESC LIMIT 1) AS n
 WHERE n.timestamp > clock_timestamp() + interval '2 seconds'

-- name: digests
-- The digests of the newest thousand events, as far as these are not larger than 64 MB.
SELECT 'critical',
       format('%s of the newest events are not as they were appended, first at position %s of conversation %s', count(*),
              min(e.position), (array_agg(e.conversation_id ORDER BY e.position))[1]),
       'keep the database as it is; eventstore backup verify shows which backups are intact, and eventstore backup restore '
       'restores one beside it'
  FROM (SELECT n.*, sum(pg_column_size(n.content) + pg_column_size(n.metadata)) OVER (ORDER BY n.position DESC) AS bytes
          FROM (SELECT * FROM events ORDER BY position DESC LIMIT 1000) AS n) AS e
 WHERE e.bytes <= 64 * 1024 * 1024
   AND e.salt IS NOT NULL
   AND e.digest <> event_digest(e.salt, e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id,
                                e.tenant_id, e.event_type, e.actor, e.content, e.metadata)
HAVING count(*) > 0

-- name: sealed_log
-- Events that are not sealed for long.
SELECT CASE WHEN n.seconds >= {critical} THEN 'critical' ELSE 'warning' END,
       format('%s events are sealed; the one at position %s is not, for %s', coalesce(n.size, 0), n.position,
              make_interval(secs => round(n.seconds))),
       'start eventstore up or project with EVENTSTORE_AUDIT_KEY; its log says why nothing is sealed; then run '
       'eventstore audit verify'
  FROM (SELECT c.size, e.position, extract(epoch FROM clock_timestamp() - e.timestamp)::float8 AS seconds
          FROM (SELECT max(k.size) AS size, coalesce(max(k.last_position), 0) AS last_position
                  FROM audit_checkpoints k) AS c
         CROSS JOIN LATERAL (SELECT w.position, w.timestamp
                               FROM events w
                              WHERE w.position > c.last_position
                              ORDER BY w.position
                              LIMIT 1) AS e) AS n
 WHERE n.seconds >= {warning}

-- name: retention
-- Rules that no run has applied for two intervals, and conversations that the last runs could not erase.
SELECT 'warning',
       format('a retention rule of the tenant %s has not been applied for %s', r.tenant_id,
              make_interval(secs => round(extract(epoch FROM clock_timestamp() - r.since)))),
       'start eventstore up or project, by a login that may erase; its log says why a run fails'
  FROM (SELECT r.tenant_id, coalesce(r.applied_at, r.added_at) AS since
          FROM retention_rules r
         ORDER BY since
         LIMIT 1) AS r
 WHERE {retention_seconds} > 0
   AND r.since < clock_timestamp() - make_interval(secs => 2 * {retention_seconds})
 UNION ALL
SELECT 'warning', format('the last retention runs could not erase %s conversation(s)', sum(f.failed)),
       'the log of the process says why; eventstore retention run tries again'
  FROM (SELECT (r.outcome ->> 'failed')::bigint AS failed FROM retention_rules r) AS f
HAVING sum(f.failed) > 0
