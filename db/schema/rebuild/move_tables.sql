-- Move the tables of one stage to the schema of another. Statistics objects are moved separately.
CREATE FUNCTION move_tables(tables text[], stage text, to_stage text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER STATISTICS %I.%I SET SCHEMA %I', stage_schema(stage), s.stxname, stage_schema(to_stage))
          FROM unnest(tables) AS t (name)
          JOIN pg_statistic_ext s ON s.stxrelid = format('%I.%I', stage_schema(stage), t.name)::regclass
         UNION ALL
        SELECT format('ALTER TABLE %I.%I SET SCHEMA %I', stage_schema(stage), t.name, stage_schema(to_stage))
          FROM unnest(tables) AS t (name)
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION move_tables');
REVOKE ALL ON FUNCTION move_tables FROM PUBLIC;
