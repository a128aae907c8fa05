-- Return what prevents a swap of tables; no rows if nothing does.
CREATE FUNCTION swap_obstacles(tables text[]) RETURNS TABLE (obstacle text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH given AS (
        SELECT t.name, c.oid, c.relkind, c.relispartition, c.reltype, c.relowner
          FROM unnest(swap_obstacles.tables) AS t (name)
          LEFT JOIN pg_class c
            ON c.relname = t.name
           AND c.relnamespace = stage_schema('live')::regnamespace
    ),
    dependents AS (
        SELECT DISTINCT g.name, d.classid, d.objid
          FROM given g
          JOIN pg_depend d
            ON d.refclassid = 'pg_class'::regclass
           AND d.refobjid = g.oid
           AND d.deptype = 'n'
    )
    SELECT format('%s is missing', g.name) FROM given g WHERE g.oid IS NULL
     UNION ALL
    SELECT format('%s is not an ordinary table', g.name) FROM given g WHERE g.relkind <> 'r' OR g.relispartition
     UNION ALL
    SELECT format('%s belongs to %s, and %s is not a member of that role', g.name, g.relowner::regrole, current_user)
      FROM given g
     WHERE NOT pg_has_role(g.relowner, 'USAGE')
     UNION ALL
    SELECT format('the foreign key %I of %s refers to %s: drop it', k.conname, k.conrelid::regclass, g.name)
      FROM given g
      JOIN pg_constraint k ON k.confrelid = g.oid AND k.contype = 'f'
     WHERE k.conrelid NOT IN (SELECT oid FROM given)
     UNION ALL
    SELECT format('%s %s reads %s: drop it, and create it again afterwards',
                  CASE c.relkind WHEN 'm' THEN 'the materialized view' ELSE 'the view' END, c.oid::regclass, d.name)
      FROM dependents d
      JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
      JOIN pg_class c ON c.oid = r.ev_class
     WHERE c.relkind <> 'v'
        OR NOT pg_has_role(c.relowner, 'USAGE')
     UNION ALL
    SELECT format('%s depends on %s: drop it, and create it again afterwards',
                  pg_describe_object(d.classid, d.objid, 0), d.name)
      FROM dependents d
     WHERE d.classid NOT IN ('pg_rewrite'::regclass, 'pg_class'::regclass, 'pg_constraint'::regclass,
                             'pg_proc'::regclass, 'pg_trigger'::regclass)
       AND NOT (d.classid = 'pg_policy'::regclass
                AND EXISTS (SELECT FROM pg_policy p WHERE p.oid = d.objid AND p.polrelid IN (SELECT oid FROM given)))
     UNION ALL
    SELECT format('the function %s reads %s, and %s is not a member of its owner', f.oid::regprocedure, d.name, current_user)
      FROM dependents d
      JOIN pg_proc f ON d.classid = 'pg_proc'::regclass AND f.oid = d.objid
     WHERE NOT pg_has_role(f.proowner, 'USAGE')
     UNION ALL
    SELECT format('%s uses the type of a row of %s: drop it, and create it again afterwards',
                  pg_describe_object(d.classid, d.objid, d.objsubid), g.name)
      FROM given g
      JOIN pg_depend d
        ON d.refclassid = 'pg_type'::regclass
       AND d.refobjid = g.reltype
       AND d.deptype = 'n';
END;

SELECT eventstore_set_owner('FUNCTION swap_obstacles');
REVOKE ALL ON FUNCTION swap_obstacles FROM PUBLIC;
