-- name: configure
-- Everything that a session relies on, whatever the settings of the server, the database and the login are. Settings that
-- are not here only change how fast a statement is, or are set with the statement. default_transaction_read_only is left
-- to administrators: a store then reads, and its writes are refused with the remedy.
--
-- How values are written and read: the driver and the functions of the store expect these formats.
SELECT set_config('datestyle', 'ISO, MDY', false),
       set_config('intervalstyle', 'postgres', false),
       set_config('timezone', 'UTC', false),
       set_config('bytea_output', 'hex', false),
       set_config('extra_float_digits', '1', false),
       set_config('standard_conforming_strings', 'on', false),
       set_config('array_nulls', 'on', false),
       set_config('quote_all_identifiers', 'off', false), -- in definitions, which are compared with those of the migrations
-- What a statement means and finds.
       set_config('search_path', %(path)s, false),
       set_config('transform_null_equals', 'off', false),
       set_config('row_security', 'on', false),
       set_config('gin_fuzzy_search_limit', '0', false),
       CASE WHEN current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL -- PostgreSQL 17
            THEN set_config('restrict_nonsystem_relation_kind', '', false) END,
-- How transactions begin and end: a horizon needs a new snapshot in each statement.
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('default_transaction_deferrable', 'off', false),
       set_config('exit_on_error', 'off', false),
-- The statement timeout: the lower one of the login's limit and the store's. A session of a caller (null) keeps all limits
-- of the login; the store's own sessions may wait for locks and be idle without limit.
       set_config('statement_timeout', coalesce(
           (SELECT CASE WHEN s.setting::bigint BETWEEN 1 AND %(milliseconds)s THEN s.setting ELSE %(milliseconds)s::text END
              FROM pg_settings s
             WHERE s.name = 'statement_timeout'
               AND %(milliseconds)s::bigint IS NOT NULL), current_setting('statement_timeout')), false),
       CASE WHEN %(milliseconds)s::bigint IS NOT NULL
            THEN set_config('lock_timeout', '0', false)
                 || set_config('idle_in_transaction_session_timeout', '0', false)
                 || set_config('idle_session_timeout', '0', false) END,
       CASE WHEN %(milliseconds)s::bigint IS NOT NULL AND current_setting('transaction_timeout', true) IS NOT NULL -- 17
            THEN set_config('transaction_timeout', '0', false) END,
-- How soon the server ends a session whose client has vanished, and releases its locks: after some twenty seconds, like a
-- client (TCP_TIMEOUTS), instead of two hours. No effect on a socket file.
       set_config('tcp_keepalives_idle', '10', false),
       set_config('tcp_keepalives_interval', '3', false),
       set_config('tcp_keepalives_count', '3', false),
       set_config('tcp_user_timeout', '20000', false),
-- No query of the store runs so long that compiling it first pays. And before PostgreSQL 18, in a session that avoids
-- sequential scans, reading a sequence (as each append does) is estimated to be so expensive that it is compiled, for a
-- second each time.
       set_config('jit', 'off', false),
-- A setting that only a superuser may change, and the session's process.
       current_setting('session_replication_role'),
       pg_backend_pid(),
-- The role is set only if it has rights in this database: roles belong to the whole server, and another database's
-- migrations may have created them.
       (SELECT set_config('role', r.rolname, false)
          FROM pg_roles r
         WHERE r.rolname = %(role)s
           AND pg_has_role(session_user, r.oid, %(right)s)
           AND coalesce(has_table_privilege(r.oid, to_regclass(%(table)s), 'SELECT'), false))

-- name: set_caller
-- The caller, until the transaction ends. With an empty tenant no tenant's data is visible; an empty user is the whole
-- tenant. The role is set too: a pooler may give this transaction a session in which another client has set another role.
-- The conversation is the one that the query is about, or empty: it grants nothing, and makes row-level security cheaper.
SELECT set_config('role', %(role)s, true),
       set_config('eventstore.tenant', %(tenant)s, true),
       set_config('eventstore.user', %(user)s, true),
       set_config('eventstore.conversation_id', %(conversation_id)s, true)

-- name: set_role
-- A role and its search path, until the transaction ends. The role is set only if it has rights in this database; see
-- configure.
SELECT set_config('search_path', %(path)s, true),
       (SELECT set_config('role', r.rolname, true)
          FROM pg_roles r
         WHERE r.rolname = %(role)s
           AND pg_has_role(session_user, r.oid, %(right)s)
           AND coalesce(has_table_privilege(r.oid, to_regclass(%(table)s), 'SELECT'), false))

-- name: login_is_exempt
-- Return whether row-level security does not apply to the session's login.
SELECT r.rolsuper OR r.rolbypassrls
  FROM pg_roles r
 WHERE r.rolname = session_user

-- name: session_defaults
-- A default of this login's sessions with which the store cannot work; a pooler's sessions keep their defaults.
SELECT w.name, w.value
  FROM (VALUES ('array_nulls', 'on'),
               ('default_transaction_isolation', 'read committed'),
               ('exit_on_error', 'off'),
               ('gin_fuzzy_search_limit', '0'),
               ('intervalstyle', 'postgres'),
               ('quote_all_identifiers', 'off'),
               ('row_security', 'on'),
               ('transform_null_equals', 'off')) AS w (name, value)
  JOIN pg_settings s
    ON lower(s.name) = w.name
   AND s.reset_val <> w.value
UNION ALL
SELECT s.name, %(schema)s
  FROM pg_settings s
 WHERE s.name = 'search_path'
   AND %(schema)s <> ALL (string_to_array(replace(replace(s.reset_val, '"', ''), ' ', ''), ','))
 LIMIT 1

-- name: backend_state
-- Return whether a server process is idle although its client waits for an answer: it waits for a statement, or for
-- the client to receive data. The interval allows for an answer in transit. No row: the process is gone. Processes
-- of other logins, and those of a server that does not track activities, count as working.
SELECT coalesce((a.state LIKE 'idle%%' AND a.state_change < clock_timestamp() - interval '1 second')
                OR a.wait_event = 'ClientWrite', false)
  FROM pg_catalog.pg_stat_activity a
 WHERE a.pid = %(pid)s
