-- name: migration_preamble
-- The first statements in the transaction of each migration, up or down. The session is not trusted: behind a pooler it
-- may have other settings than dbmate requested, or belong to another database.
SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
{settings}
SET LOCAL lock_timeout = '{lock_timeout}';
DO $preamble$
BEGIN
    IF pg_catalog.current_schema() IS DISTINCT FROM '{schema}' THEN
        RAISE EXCEPTION 'the database "%" has no schema "{schema}" that % may use', current_database(), current_user
            USING ERRCODE = 'invalid_schema_name';
    END IF;
    -- The program that started this run holds a lock of this key in another transaction.
    IF NOT EXISTS (
           SELECT
             FROM pg_catalog.pg_locks l
            WHERE l.locktype = 'advisory'
              AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
              AND l.classid::bigint = ({key} >> 32)
              AND l.objid::bigint = ({key} & 4294967295)
              AND l.objsubid = 1
              AND l.granted
       ) THEN
        RAISE EXCEPTION 'dbmate did not reach the database that was checked, or the connection that checked it is lost: connect to the server itself, not through a proxy'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$preamble$;

-- name: record_migration
-- The last statement in the transaction of each migration, up or down, if the schema has the function then.
DO $record$
BEGIN
    IF to_regprocedure('{schema}.record_migration(text, text)') IS NOT NULL THEN
        PERFORM {schema}.record_migration('{version}', '{act}');
    END IF;
END
$record$;

-- name: migration_settings
-- The settings on which migrations rely, until the transaction ends, whatever the server, the database, the login or an
-- earlier client of a pooled session has set. Settings that this version of the server lacks are left out.
SET LOCAL role TO DEFAULT;
SELECT pg_catalog.set_config(v.name, v.value, true)
  FROM (VALUES
           -- Names: the store's schema first, temporary objects last.
           ('search_path', '{schema}, pg_temp'),
           -- Reading values, and writing them into definitions.
           ('datestyle', 'ISO, MDY'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'), ('bytea_output', 'hex'),
           ('extra_float_digits', '1'), ('xmloption', 'content'), ('quote_all_identifiers', 'off'),
           -- Reading SQL.
           ('backslash_quote', 'safe_encoding'), ('transform_null_equals', 'off'),
           ('array_nulls', 'on'), ('check_function_bodies', 'on'), ('plpgsql.extra_errors', 'none'),
           -- Creating objects.
           ('default_tablespace', ''), ('temp_tablespaces', ''), ('default_table_access_method', 'heap'),
           ('createrole_self_grant', ''),
           -- Row-level security filters; it does not raise errors.
           ('row_security', 'on'),
           -- A migration has no time limit; how long it waits for a lock, its preamble says.
           ('lock_timeout', '0'), ('statement_timeout', '0'), ('transaction_timeout', '0'),
           ('idle_in_transaction_session_timeout', '0')
       ) AS v (name, value)
 WHERE v.name LIKE '%.%'
    OR v.name IN (SELECT lower(s.name) FROM pg_catalog.pg_settings s);

-- name: refuse_to_lose
-- Raises an error if a table holds irreplaceable rows. Row-level security hides no row here: it does not apply to the
-- owner of the table while it is not forced. The end of this transaction, or of the table, undoes that.
DO $guard$
BEGIN
    IF to_regclass('{schema}.{table}') IS NULL OR pg_relation_size('{schema}.{table}') = 0 THEN
        RETURN;
    END IF;
    LOCK TABLE {schema}.{table} IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE {schema}.{table} NO FORCE ROW LEVEL SECURITY;
    IF EXISTS (SELECT FROM {schema}.{table} WHERE {condition}) THEN
        RAISE EXCEPTION 'reverting {version} would destroy {what}: back it up, then say --destroy-events if you mean it'
            USING ERRCODE = 'ES020';
    END IF;
END
$guard$;

-- name: other_sessions
-- Ends a login's sessions in this database, except for the calling program's own, and waits until each has ended.
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid, 10000))
  FROM pg_stat_activity a
 WHERE a.datname = current_database()
   AND a.usename = %(login)s
   AND a.backend_type = 'client backend'
   AND a.pid <> ALL (%(own)s::integer[])

-- name: older_sessions
-- A login's sessions in this database whose transaction began before a moment.
SELECT a.pid
  FROM pg_stat_activity a
 WHERE a.datname = current_database()
   AND a.usename = %(login)s
   AND a.backend_type = 'client backend'
   AND a.xact_start < %(now)s
   AND a.pid <> ALL (%(own)s::integer[])

-- name: does_not_inherit
-- Return whether the login may give objects to the owner's role, but would then lose its rights to them.
SELECT NOT l.rolsuper
       AND (l.rolcreaterole AND NOT l.rolinherit
            OR EXISTS (
                SELECT FROM pg_roles o
                 WHERE o.rolname = 'eventstore_owner'
                   AND pg_has_role(l.oid, o.oid, %(right_to_set)s)
                   AND NOT pg_has_role(l.oid, o.oid, 'USAGE')
            ))
  FROM pg_roles l
 WHERE l.rolname = session_user
