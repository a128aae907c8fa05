-- Create tables in the schema of the stage next, like the live ones but without indexes, keys, triggers and policies
-- (missing_in_staging).
--
-- A rebuild reads everything from the catalogs, so objects that users have added to a table (an index, a policy, a
-- trigger) are there afterwards as well. Its functions are called by the login itself, which must own the tables or be
-- a member of their owner.
CREATE FUNCTION create_staging_tables(tables text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    live      text := stage_schema('live');
    next      text := stage_schema('next');
    name      text;
    new_table text;
    source    pg_class;
    statement text;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        new_table := format('%I.%I', next, name);
        SELECT c.* INTO source FROM pg_class c WHERE c.oid = format('%I.%I', live, name)::regclass;
        EXECUTE format('CREATE TABLE %s (LIKE %I.%I INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)',
                       new_table, live, name);
        FOR statement IN
            SELECT format('ALTER TABLE %s OWNER TO %s', new_table, source.relowner::regrole)
             UNION ALL
            SELECT format('ALTER TABLE %s SET (%s)', new_table, array_to_string(source.reloptions, ', '))
             WHERE source.reloptions IS NOT NULL
             UNION ALL
            SELECT format('COMMENT ON TABLE %s IS %L', new_table, obj_description(source.oid, 'pg_class'))
             WHERE obj_description(source.oid, 'pg_class') IS NOT NULL
             UNION ALL
            SELECT format('ALTER TABLE %s REPLICA IDENTITY %s', new_table,
                          CASE source.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END)
             WHERE source.relreplident IN ('f', 'n')
             UNION ALL
            SELECT format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', new_table, a.attname, a.attstattarget)
              FROM pg_attribute a
             WHERE a.attrelid = source.oid AND a.attnum > 0 AND a.attstattarget >= 0
             UNION ALL
            SELECT format('GRANT %s ON TABLE %s TO %s%s', g.privilege_type, new_table, grantee_name(g.grantee),
                          CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM aclexplode(source.relacl) AS g
             WHERE g.grantee <> source.relowner
             UNION ALL
            SELECT format('GRANT %s (%I) ON TABLE %s TO %s%s', g.privilege_type, a.attname, new_table, grantee_name(g.grantee),
                          CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM pg_attribute a, aclexplode(a.attacl) AS g
             WHERE a.attrelid = source.oid AND a.attnum > 0
        LOOP
            EXECUTE statement;
        END LOOP;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION create_staging_tables');
REVOKE ALL ON FUNCTION create_staging_tables FROM PUBLIC;
