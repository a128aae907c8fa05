-- Runs first in the transaction of each migration that dbmate is given, up or down. The session is not trusted: behind a
-- pooler it can have other settings than dbmate asked for, or belong to another database.
SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
{settings}
DO $preamble$
BEGIN
    IF pg_catalog.current_schema() IS DISTINCT FROM '{schema}' THEN
        RAISE EXCEPTION 'the database "%" has no schema "{schema}" that % may use', current_database(), current_user
            USING ERRCODE = 'invalid_schema_name';
    END IF;
    -- The program that started this run holds a lock of this key in a transaction of its own.
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
