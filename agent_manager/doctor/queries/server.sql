-- What the doctor looks for in the server and the database, as the login. Each query is a check, and each of its rows a
-- problem: the severity, what is wrong, and what to do. Ages of {warning} and {critical} seconds are too much.

-- name: primary
-- A server or session that only reads.
SELECT 'critical', 'the server is a standby, which only reads',
       'name the primary in DATABASE_URL, or all servers with ?target_session_attrs=read-write'
 WHERE pg_is_in_recovery()
 UNION ALL
SELECT 'critical', format('transactions of the login %s only read (default_transaction_read_only)', session_user),
       format('ALTER ROLE %1$I RESET default_transaction_read_only; ALTER DATABASE %2$I RESET default_transaction_read_only; '
              'ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()', session_user, current_database())
 WHERE NOT pg_is_in_recovery()
   AND (SELECT s.reset_val FROM pg_settings s WHERE s.name = 'default_transaction_read_only') = 'on'

-- name: server_version
-- Minor versions before these let a user see rows that row-level security hides (CVE-2024-10976, CVE-2025-8713).
SELECT 'warning',
       format('PostgreSQL %s has flaws in row-level security, which %s.%s corrects',
              current_setting('server_version'), v.number / 10000, f.minor),
       format('install the latest minor version of PostgreSQL %s, and restart the server', v.number / 10000)
  FROM (SELECT current_setting('server_version_num')::integer) AS v (number)
  JOIN (VALUES (15, 14), (16, 10), (17, 6)) AS f (major, minor)
    ON f.major = v.number / 10000
   AND v.number % 10000 < f.minor
 UNION ALL
SELECT 'warning', format('PostgreSQL %s is newer than what was tested', current_setting('server_version')),
       'use PostgreSQL 15 to 18, or a newer version of flowagents-eventstore'
 WHERE current_setting('server_version_num')::integer >= 190000

-- name: durability
-- Settings with which acknowledged writes can be lost, of the server, of this database or of a role in it.
WITH bad (name, value, severity, effect) AS (
    VALUES ('fsync', 'off', 'critical', 'if the machine crashes, acknowledged events are lost and tables are damaged'),
           ('full_page_writes', 'off', 'critical', 'if the machine crashes, tables can be damaged'),
           ('zero_damaged_pages', 'on', 'critical', 'pages that are damaged on disk are emptied instead of reported'),
           ('ignore_checksum_failure', 'on', 'critical', 'pages that are damaged on disk are read as if they were intact'),
           ('session_replication_role', 'replica', 'critical', 'triggers do not fire, and a store does not open'),
           ('synchronous_commit', 'off', 'warning',
            'if the server crashes, users and keys that were just added are lost (events are not: appends turn it on)')
), found AS (
    SELECT s.name, s.setting AS value, NULL::oid AS role, NULL::oid AS database
      FROM pg_settings s
     WHERE s.source NOT IN ('database', 'user', 'database user', 'global', 'session', 'client')
     UNION ALL
    SELECT split_part(c.text, '=', 1), CASE lower(split_part(c.text, '=', 2))
               WHEN 'false' THEN 'off' WHEN 'no' THEN 'off' WHEN '0' THEN 'off'
               WHEN 'true' THEN 'on' WHEN 'yes' THEN 'on' WHEN '1' THEN 'on'
               ELSE lower(split_part(c.text, '=', 2)) END,
           s.setrole, s.setdatabase
      FROM pg_db_role_setting s
     CROSS JOIN unnest(s.setconfig) AS c (text)
     WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
)
SELECT b.severity,
       format('%s is %s for %s: %s', b.name, b.value,
              CASE WHEN f.role IS NULL THEN 'the server'
                   WHEN f.role <> 0 THEN format('the role %s%s', pg_get_userbyid(f.role),
                                                CASE WHEN f.database <> 0 THEN ' in this database' END)
                   WHEN f.database <> 0 THEN 'this database'
                   ELSE 'all roles' END,
              b.effect),
       CASE WHEN f.role IS NULL
            THEN format('ALTER SYSTEM SET %s = %L; SELECT pg_reload_conf()', b.name,
                        CASE b.value WHEN 'off' THEN 'on' WHEN 'on' THEN 'off' ELSE 'origin' END)
            WHEN f.role <> 0
            THEN format('ALTER ROLE %I%s RESET %s', pg_get_userbyid(f.role),
                        CASE WHEN f.database <> 0 THEN format(' IN DATABASE %I', current_database()) END, b.name)
            WHEN f.database <> 0 THEN format('ALTER DATABASE %I RESET %s', current_database(), b.name)
            ELSE format('ALTER ROLE ALL RESET %s', b.name) END
  FROM found f
  JOIN bad b
    ON b.name = f.name
   AND b.value = f.value

-- name: checksums
SELECT 'warning', 'data checksums are off: a page that is damaged on disk is not noticed when it is read',
       format('stop the server, run pg_checksums --enable -D %s, and start it again',
              coalesce((SELECT s.setting FROM pg_settings s WHERE s.name = 'data_directory'), 'DATA_DIRECTORY'))
 WHERE current_setting('data_checksums') = 'off'

-- name: archiving
SELECT 'warning', 'wal_level is minimal: neither a standby nor a backup by pg_basebackup is possible',
       'ALTER SYSTEM SET wal_level = ''replica'', and restart the server'
 WHERE current_setting('wal_level') = 'minimal'
 UNION ALL
SELECT 'critical', format('archiving WAL has failed %s times, last at %s for %s: pg_wal grows until the disk is full',
                          a.failed_count, date_trunc('second', a.last_failed_time), a.last_failed_wal),
       'see the server''s log, and correct archive_command'
  FROM pg_stat_archiver a
 WHERE current_setting('archive_mode') <> 'off'
   AND a.last_failed_time > coalesce(a.last_archived_time, '-infinity')

-- name: standbys
-- Synchronous standbys that appends wait for.
WITH wanted AS (
    SELECT coalesce(substring(current_setting('synchronous_standby_names') FROM '(?i)^\s*(?:any|first)?\s*(\d+)\s*\('), '1')::integer
           AS number
), connected AS (
    SELECT count(*) FILTER (WHERE r.sync_state IN ('sync', 'quorum')) AS synchronous,
           count(*) FILTER (WHERE r.sync_state IS NULL) AS hidden
      FROM pg_stat_replication r
)
SELECT CASE WHEN c.hidden > 0 THEN 'not checked' ELSE 'critical' END,
       CASE WHEN c.hidden > 0 THEN 'the login may not see the state of standbys'
            ELSE format('appends wait for %s synchronous standby(s) (synchronous_standby_names), and %s are connected',
                        w.number, c.synchronous) END,
       CASE WHEN c.hidden > 0 THEN format('GRANT pg_monitor TO %I', session_user)
            ELSE 'start the standby; or, to go on without it, '
                 'ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()' END
  FROM wanted w
 CROSS JOIN connected c
 WHERE current_setting('synchronous_standby_names') <> ''
   AND NOT pg_is_in_recovery()
   AND c.synchronous < w.number
 UNION ALL
SELECT 'warning',
       format('synchronous_commit is %s: a synchronous standby does not have an event on disk when its append is acknowledged',
              s.setting),
       'ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()'
  FROM pg_settings s
 WHERE s.name = 'synchronous_commit'
   AND s.setting IN ('local', 'remote_write')
   AND current_setting('synchronous_standby_names') <> ''

-- name: replication_slots
-- Slots that keep WAL for a standby or consumer that does not read it.
SELECT CASE WHEN s.wal_status IN ('unreserved', 'lost') OR s.bytes > 4 * m.bytes THEN 'critical' ELSE 'warning' END,
       format('the replication slot %s is not in use, and keeps %s of WAL', s.slot_name, pg_size_pretty(s.bytes)),
       format('start its standby, or drop it: SELECT pg_drop_replication_slot(%L)', s.slot_name)
  FROM (SELECT r.slot_name, r.active, r.wal_status,
               greatest(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                             ELSE pg_current_wal_lsn() END, r.restart_lsn), 0) AS bytes
          FROM pg_replication_slots r
         WHERE NOT r.temporary) AS s
 CROSS JOIN (SELECT pg_size_bytes(current_setting('max_wal_size')) AS bytes) AS m
 WHERE NOT s.active

-- name: wal_size
SELECT 'warning', format('pg_wal holds %s, four times max_wal_size', pg_size_pretty(w.bytes)),
       'see the checks archiving, replication_slots and standbys; otherwise ALTER SYSTEM RESET wal_keep_size'
  FROM (SELECT sum(l.size) AS bytes FROM pg_ls_waldir() AS l) AS w
 WHERE w.bytes > 4 * pg_size_bytes(current_setting('max_wal_size'))

-- name: connections
SELECT CASE WHEN u.used >= 0.95 * u.most THEN 'critical' ELSE 'warning' END,
       format('%s of %s connections that %s allows are in use, most by %s', u.used, u.most, u.limit_name,
              (SELECT string_agg(format('%s (%s)', coalesce(nullif(t.application_name, ''), 'no name'), t.number), ', ')
                 FROM (SELECT a.application_name, count(*) AS number
                         FROM pg_stat_activity a
                        WHERE a.usename IS NOT NULL
                        GROUP BY a.application_name
                        ORDER BY count(*) DESC
                        LIMIT 3) AS t)),
       'end programs that are not needed, lower EVENTSTORE_POOL_SIZE, use a pooler, or raise ' || u.limit_name
  FROM (SELECT sum(d.numbackends) AS used,
               current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
               - coalesce(current_setting('reserved_connections', true), '0')::integer AS most,
               'max_connections' AS limit_name
          FROM pg_stat_database d
         UNION ALL
        SELECT (SELECT count(*) FROM pg_stat_activity a WHERE a.usename = r.rolname), r.rolconnlimit,
               format('the CONNECTION LIMIT of the login %s', r.rolname)
          FROM pg_roles r
         WHERE r.rolname = session_user
           AND r.rolconnlimit > 0
         UNION ALL
        SELECT d.numbackends, b.datconnlimit, 'the CONNECTION LIMIT of the database'
          FROM pg_database b
          JOIN pg_stat_database d ON d.datid = b.oid
         WHERE b.datname = current_database()
           AND b.datconnlimit > 0) AS u
 WHERE u.used >= 0.8 * u.most

-- name: notify_queue
SELECT CASE WHEN q.usage >= 0.9 THEN 'critical' ELSE 'warning' END,
       format('the queue of notifications is %s %% full: consumers poll instead of being notified', round(q.usage * 100)),
       'end the session that listens in an open transaction: see the check transactions, in all databases'
  FROM (SELECT pg_notification_queue_usage()::numeric AS usage) AS q
 WHERE q.usage >= 0.5

-- name: wraparound
-- Transaction ids that the server is running out of; it refuses to write at some two thousand million.
SELECT CASE WHEN d.age > 1600000000 THEN 'critical' ELSE 'warning' END,
       format('the database %s has rows that are %s transactions old: autovacuum does not keep up', d.datname, d.age),
       format('see the check vacuum_horizon, then run vacuumdb --freeze %s', quote_ident(d.datname))
  FROM (SELECT b.datname, greatest(age(b.datfrozenxid), mxid_age(b.datminmxid)) AS age FROM pg_database b) AS d
 WHERE d.age > 1000000000

-- name: collation
SELECT 'warning',
       format('the collation of the database is of version %s, and the system''s of version %s: indexes on texts may be wrong',
              d.datcollversion, pg_database_collation_actual_version(d.oid)),
       format('REINDEX DATABASE %1$I; ALTER DATABASE %1$I REFRESH COLLATION VERSION', d.datname)
  FROM pg_database d
 WHERE d.datname = current_database()
   AND d.datcollversion <> pg_database_collation_actual_version(d.oid)

-- name: transactions
-- Open transactions: idle ones are forgotten, and both keep dead rows from being removed.
SELECT CASE WHEN a.state LIKE 'idle%' AND a.seconds >= {critical} THEN 'critical' ELSE 'warning' END,
       format('process %s (%s, login %s, %s) has a transaction open for %s', a.pid,
              coalesce(nullif(a.application_name, ''), 'no name'), a.usename, a.state, make_interval(secs => round(a.seconds))),
       format('SELECT pg_terminate_backend(%s)', a.pid)
  FROM (SELECT s.pid, s.application_name, s.usename, s.state,
               extract(epoch FROM clock_timestamp() - s.xact_start)::float8 AS seconds
          FROM pg_stat_activity s
         WHERE s.datname = current_database()
           AND s.backend_type = 'client backend'
           AND s.pid <> pg_backend_pid()) AS a
 WHERE a.seconds >= CASE WHEN a.state LIKE 'idle%' THEN {warning} ELSE {critical} END
 UNION ALL
SELECT 'not checked', format('the login may not see what %s sessions of other logins do', count(*)),
       format('GRANT pg_monitor TO %I', session_user)
  FROM pg_stat_activity s
 WHERE s.datname = current_database()
   AND s.query = '<insufficient privilege>'
HAVING count(*) > 0

-- name: prepared_transactions
SELECT CASE WHEN p.seconds >= {critical} THEN 'critical' ELSE 'warning' END,
       format('the transaction %s of the login %s is prepared for %s, and keeps its locks', p.gid, p.owner,
              make_interval(secs => round(p.seconds))),
       format('ROLLBACK PREPARED %L, or COMMIT PREPARED', p.gid)
  FROM (SELECT x.gid, x.owner, extract(epoch FROM clock_timestamp() - x.prepared)::float8 AS seconds
          FROM pg_prepared_xacts x
         WHERE x.database = current_database()) AS p
 WHERE p.seconds >= {warning}

-- name: vacuum_horizon
-- What keeps dead rows from being removed, by the transactions that have begun since.
SELECT 'warning', format('%s keeps dead rows of the last %s transactions', h.holder, h.age), h.remedy
  FROM (SELECT format('process %s (%s)', a.pid, coalesce(nullif(a.application_name, ''), 'no name')), age(a.backend_xmin),
               format('SELECT pg_terminate_backend(%s)', a.pid)
          FROM pg_stat_activity a
         WHERE a.pid NOT IN (SELECT r.pid FROM pg_stat_replication r)
         UNION ALL
        SELECT format('the standby %s (hot_standby_feedback)', r.application_name), age(r.backend_xmin),
               'end the long query on the standby, or set hot_standby_feedback = off there'
          FROM pg_stat_replication r
         UNION ALL
        SELECT format('the replication slot %s', s.slot_name), greatest(age(s.xmin), age(s.catalog_xmin)),
               format('end the long query on its standby, or SELECT pg_drop_replication_slot(%L)', s.slot_name)
          FROM pg_replication_slots s
         UNION ALL
        SELECT format('the prepared transaction %s', p.gid), age(p.transaction), format('ROLLBACK PREPARED %L', p.gid)
          FROM pg_prepared_xacts p) AS h (holder, age, remedy)
 WHERE h.age > 1000000

-- name: autovacuum
SELECT 'warning', format('%s is off: dead rows are never removed, and statistics become wrong', s.name),
       format('ALTER SYSTEM SET %s = on; SELECT pg_reload_conf()', s.name)
  FROM pg_settings s
 WHERE s.name IN ('autovacuum', 'track_counts')
   AND s.setting = 'off'
 UNION ALL
SELECT 'warning', format('autovacuum is off for the table %s', c.relname),
       format('ALTER TABLE %s RESET (autovacuum_enabled)', c.oid::regclass)
  FROM pg_class c
 WHERE c.relnamespace = current_schema()::regnamespace
   AND c.relname = ANY ({tables})
   AND EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o
                WHERE o.option_name = 'autovacuum_enabled' AND lower(o.option_value) IN ('off', 'false', 'no', '0'))

-- name: unlogged_tables
SELECT 'critical', format('the table %s is unlogged: a crash of the server empties it', c.relname),
       format('ALTER TABLE %s SET LOGGED', c.oid::regclass)
  FROM pg_class c
 WHERE c.relnamespace = current_schema()::regnamespace
   AND c.relname = ANY ({tables})
   AND c.relpersistence = 'u'

-- name: indexes
SELECT 'warning', format('the index %s is invalid, and not used', i.indexrelid::regclass),
       format('REINDEX INDEX CONCURRENTLY %s', i.indexrelid::regclass)
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indrelid
 WHERE c.relnamespace = current_schema()::regnamespace
   AND c.relname = ANY ({tables})
   AND NOT (i.indisvalid AND i.indisready)

-- name: appends
-- Appends whose transaction stays open, by the gate that they hold.
SELECT CASE WHEN a.seconds >= {critical} THEN 'critical' ELSE 'warning' END,
       format('an append of %s is open for %s: readers see no event after it', a.holder,
              make_interval(secs => round(a.seconds))),
       a.remedy
  FROM (SELECT CASE WHEN l.pid IS NULL THEN format('the prepared transaction %s', p.gid)
                    ELSE format('process %s (%s, login %s, %s)', l.pid,
                                coalesce(nullif(s.application_name, ''), 'no name'), s.usename, coalesce(s.state, 'unknown'))
               END AS holder,
               extract(epoch FROM clock_timestamp() - coalesce(p.prepared, s.xact_start))::float8 AS seconds,
               CASE WHEN l.pid IS NULL THEN format('ROLLBACK PREPARED %L, or COMMIT PREPARED', p.gid)
                    ELSE format('SELECT pg_terminate_backend(%s)', l.pid) END AS remedy
          FROM pg_locks l
          LEFT JOIN pg_stat_activity s ON s.pid = l.pid
          LEFT JOIN pg_locks t
            ON l.pid IS NULL
           AND t.pid IS NULL
           AND t.virtualtransaction = l.virtualtransaction
           AND t.locktype = 'transactionid'
          LEFT JOIN pg_prepared_xacts p ON p.transaction = t.transactionid
         WHERE l.locktype = 'advisory'
           AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
           AND l.classid = to_regclass('events_position')::oid
           AND l.objsubid = 2
           AND l.granted) AS a
 WHERE a.seconds >= {warning}

-- name: locks
-- Sessions that others wait for, and idle sessions that hold locks of conversations without a transaction.
SELECT CASE WHEN max(w.seconds) >= {critical} THEN 'critical' ELSE 'warning' END,
       CASE WHEN b.pid = 0 THEN 'a prepared transaction'
            ELSE format('process %s (%s, %s)', b.pid, coalesce(nullif(max(s.application_name), ''), 'no name'),
                        coalesce(max(s.state), 'unknown')) END
       || format(' blocks %s session(s), for up to %s', count(DISTINCT w.pid), make_interval(secs => round(max(w.seconds)))),
       CASE WHEN b.pid = 0 THEN 'see the check prepared_transactions' ELSE format('SELECT pg_terminate_backend(%s)', b.pid) END
  FROM (SELECT l.pid, extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS seconds
          FROM pg_locks l
         WHERE NOT l.granted
           AND (l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) OR l.database IS NULL)) AS w
 CROSS JOIN unnest(pg_blocking_pids(w.pid)) AS b (pid)
  LEFT JOIN pg_stat_activity s ON s.pid = b.pid
 WHERE w.seconds >= {warning}
 GROUP BY b.pid
 UNION ALL
SELECT 'warning',
       format('process %s (%s) is idle, and holds %s advisory lock(s): appends to conversations may wait for it', h.pid,
              coalesce(nullif(h.application_name, ''), 'no name'), h.number),
       format('SELECT pg_terminate_backend(%s)', h.pid)
  FROM (SELECT s.pid, s.application_name, count(*) AS number
          FROM pg_locks l
          JOIN pg_stat_activity s
            ON s.pid = l.pid
           AND s.state = 'idle'
           AND extract(epoch FROM clock_timestamp() - s.state_change) >= {warning}
         WHERE l.locktype = 'advisory'
           AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
           AND l.objsubid = 1
           AND l.granted
           AND (l.classid::bigint << 32 | l.objid::bigint) <> ALL (ARRAY(SELECT rebuild_key(p) FROM unnest({projections}::text[]) AS p))
         GROUP BY s.pid, s.application_name) AS h

-- name: login
-- Logins that use the store, and to which row-level security does not apply.
SELECT CASE WHEN {allow_superuser} THEN 'warning' ELSE 'critical' END,
       format('the login %s %s: row-level security does not hold for it', r.rolname,
              CASE WHEN r.rolsuper THEN 'is a superuser' ELSE 'has BYPASSRLS' END),
       CASE WHEN r.rolsuper THEN 'let the service connect as another login (docs/concepts/roles.md)'
            ELSE format('ALTER ROLE %I NOBYPASSRLS', r.rolname) END
  FROM pg_roles r
 WHERE r.rolcanlogin
   AND (r.rolsuper OR r.rolbypassrls)
   AND (r.rolname = session_user
        OR EXISTS (SELECT FROM pg_auth_members m
                     JOIN pg_roles o ON o.oid = m.roleid
                    WHERE m.member = r.oid
                      AND o.rolname LIKE 'eventstore\_%'))

-- name: schema_state
-- Whether the schema and the table of applied migrations exist, and whether the login may use the schema.
SELECT n.oid IS NOT NULL AND EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = {bookkeeping}),
       coalesce(has_schema_privilege(n.oid, 'USAGE'), false)
  FROM (SELECT {schema}::text) AS s (name)
  LEFT JOIN pg_namespace n ON n.nspname = s.name
