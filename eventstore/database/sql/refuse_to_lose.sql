-- Raises an error if a table holds rows that nothing could bring back. Row-level security hides no row here: the owner of
-- the table passes it while it is not forced, which this transaction's end, or the table's, undoes.
DO $guard$
BEGIN
    IF to_regclass('{schema}.{table}') IS NULL OR pg_relation_size('{schema}.{table}') = 0 THEN
        RETURN;
    END IF;
    LOCK TABLE {schema}.{table} IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE {schema}.{table} NO FORCE ROW LEVEL SECURITY;
    IF EXISTS (SELECT FROM {schema}.{table}) THEN
        RAISE EXCEPTION 'reverting {version} would destroy {what}: back it up, then say --destroy-events if you mean it'
            USING ERRCODE = 'ES020';
    END IF;
END
$guard$;
