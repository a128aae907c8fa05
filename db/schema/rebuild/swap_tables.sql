-- Replace the live tables by those of a stage (next or previous); the live ones become the previous. Views and SQL
-- functions that read the live tables read the new ones afterwards. The locks that block readers are held from LOCK
-- TABLE to the end of the transaction, which should follow at once; the caller limits the wait for them.
CREATE FUNCTION swap_tables(projection text, tables text[], stage text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    original_path text := current_setting('search_path');
    moves         text[][] := CASE stage
                                  WHEN 'next' THEN '{{live,previous},{next,live}}'
                                  ELSE '{{live,next},{previous,live},{next,previous}}'
                              END;
    live_tables   oid[];
    definitions   text[];
    definition    text;
    move          text[];
BEGIN
    SELECT array_agg(format('%I.%I', stage_schema('live'), t)::regclass::oid) INTO live_tables FROM unnest(tables) AS t;
    -- With only the system catalogs in the path, definitions qualify every table.
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT array_agg(DISTINCT
               CASE
                   WHEN d.classid = 'pg_proc'::regclass THEN pg_get_functiondef(d.objid)
                   ELSE format('CREATE OR REPLACE VIEW %s%s AS %s', c.oid::regclass,
                               ' WITH (' || array_to_string(c.reloptions, ', ') || ')', pg_get_viewdef(c.oid))
               END)
      INTO definitions
      FROM pg_depend d
      LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
      LEFT JOIN pg_class c ON c.oid = r.ev_class
     WHERE d.refclassid = 'pg_class'::regclass
       AND d.refobjid = ANY (live_tables)
       AND d.deptype = 'n'
       AND (c.relkind = 'v' OR d.classid = 'pg_proc'::regclass);
    PERFORM set_config('search_path', original_path, true);

    EXECUTE 'LOCK TABLE ' || (SELECT string_agg(o::regclass::text, ', ') FROM unnest(live_tables) AS o)
            || ' IN ACCESS EXCLUSIVE MODE';
    FOREACH move SLICE 1 IN ARRAY moves LOOP
        PERFORM move_tables(tables, move[1], move[2]), move_stage(projection, move[1], move[2]);
    END LOOP;
    FOREACH definition IN ARRAY coalesce(definitions, '{}') LOOP
        EXECUTE definition;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION swap_tables');
REVOKE ALL ON FUNCTION swap_tables FROM PUBLIC;
