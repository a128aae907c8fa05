-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Making read tables anew beside the live ones, with all that belongs to them, and swapping the two. Everything is read
-- from the catalogs, so what somebody added to a table (an index, a policy, a trigger) is there afterwards as well.
-- Called by the login itself, who must own the tables or be a member of their owner.

CREATE FUNCTION role_shown(role oid) RETURNS text
LANGUAGE sql STABLE
RETURN CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END;

-- What stands in the way of a swap; no rows if nothing does.
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
    SELECT format('%s is no plain table', g.name) FROM given g WHERE g.relkind <> 'r' OR g.relispartition
     UNION ALL
    SELECT format('%s belongs to %s, and %s is no member of that role', g.name, g.relowner::regrole, current_user)
      FROM given g
     WHERE NOT pg_has_role(g.relowner, 'USAGE')
     UNION ALL
    SELECT format('the foreign key %I of %s refers to %s: drop it', k.conname, k.conrelid::regclass, g.name)
      FROM given g
      JOIN pg_constraint k ON k.confrelid = g.oid AND k.contype = 'f'
     WHERE k.conrelid NOT IN (SELECT oid FROM given)
     UNION ALL
    SELECT format('%s %s reads %s: drop it, and make it again afterwards',
                  CASE c.relkind WHEN 'm' THEN 'the materialized view' ELSE 'the view' END, c.oid::regclass, d.name)
      FROM dependents d
      JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
      JOIN pg_class c ON c.oid = r.ev_class
     WHERE c.relkind <> 'v'
        OR NOT pg_has_role(c.relowner, 'USAGE')
     UNION ALL
    SELECT format('%s depends on %s: drop it, and make it again afterwards',
                  pg_describe_object(d.classid, d.objid, 0), d.name)
      FROM dependents d
     WHERE d.classid NOT IN ('pg_rewrite'::regclass, 'pg_class'::regclass, 'pg_constraint'::regclass,
                             'pg_proc'::regclass, 'pg_trigger'::regclass)
       AND NOT (d.classid = 'pg_policy'::regclass
                AND EXISTS (SELECT FROM pg_policy p WHERE p.oid = d.objid AND p.polrelid IN (SELECT oid FROM given)))
     UNION ALL
    SELECT format('the function %s reads %s, and %s is no member of its owner', f.oid::regprocedure, d.name, current_user)
      FROM dependents d
      JOIN pg_proc f ON d.classid = 'pg_proc'::regclass AND f.oid = d.objid
     WHERE NOT pg_has_role(f.proowner, 'USAGE')
     UNION ALL
    SELECT format('%s uses the type of a row of %s: drop it, and make it again afterwards',
                  pg_describe_object(d.classid, d.objid, d.objsubid), g.name)
      FROM given g
      JOIN pg_depend d
        ON d.refclassid = 'pg_type'::regclass
       AND d.refobjid = g.reltype
       AND d.deptype = 'n';
END;

-- Makes the tables in another schema, like the live ones but without indexes, keys, triggers and policies.
CREATE FUNCTION make_shadows(tables text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    live   text := stage_schema('live');
    next   text := stage_schema('next');
    name   text;
    shown  text;
    source pg_class;
    more   text;
BEGIN
    FOREACH name IN ARRAY tables LOOP
        shown := format('%I.%I', next, name);
        SELECT c.* INTO source FROM pg_class c WHERE c.oid = format('%I.%I', live, name)::regclass;
        EXECUTE format('CREATE TABLE %s (LIKE %I.%I INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS)',
                       shown, live, name);
        FOR more IN
            SELECT format('ALTER TABLE %s OWNER TO %s', shown, source.relowner::regrole)
             UNION ALL
            SELECT format('ALTER TABLE %s SET (%s)', shown, array_to_string(source.reloptions, ', '))
             WHERE source.reloptions IS NOT NULL
             UNION ALL
            SELECT format('COMMENT ON TABLE %s IS %L', shown, obj_description(source.oid, 'pg_class'))
             WHERE obj_description(source.oid, 'pg_class') IS NOT NULL
             UNION ALL
            SELECT format('ALTER TABLE %s REPLICA IDENTITY %s', shown,
                          CASE source.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END)
             WHERE source.relreplident IN ('f', 'n')
             UNION ALL
            SELECT format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', shown, a.attname, a.attstattarget)
              FROM pg_attribute a
             WHERE a.attrelid = source.oid AND a.attnum > 0 AND a.attstattarget >= 0
             UNION ALL
            SELECT format('GRANT %s ON TABLE %s TO %s%s', g.privilege_type, shown, role_shown(g.grantee),
                          CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM aclexplode(source.relacl) AS g
             WHERE g.grantee <> source.relowner
             UNION ALL
            SELECT format('GRANT %s (%I) ON TABLE %s TO %s%s', g.privilege_type, a.attname, shown, role_shown(g.grantee),
                          CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM pg_attribute a, aclexplode(a.attacl) AS g
             WHERE a.attrelid = source.oid AND a.attnum > 0
        LOOP
            EXECUTE more;
        END LOOP;
    END LOOP;
END
$$;

-- What the next tables lack beside the live ones, in the order in which it must be made; each statement is to be run
-- with the schema of the next tables before that of the live ones in the search path.
CREATE FUNCTION missing_in_shadows(tables text[]) RETURNS TABLE (what text, statement text, is_key boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH pair AS (
        SELECT t.name, format('%I.%I', stage_schema('next'), t.name) AS shown, l.oid AS live, n.oid AS next,
               l.relrowsecurity, l.relforcerowsecurity, n.relrowsecurity AS has_security,
               n.relforcerowsecurity AS has_forced
          FROM unnest(missing_in_shadows.tables) AS t (name)
          JOIN pg_class l ON l.relname = t.name AND l.relnamespace = stage_schema('live')::regnamespace
          JOIN pg_class n ON n.relname = t.name AND n.relnamespace = stage_schema('next')::regnamespace
    )
    SELECT m.what, m.statement, m.step = 1
      FROM (
        SELECT CASE k.contype WHEN 'f' THEN 3 ELSE 1 END AS step, k.conname::text AS what,
               format('ALTER TABLE %s ADD CONSTRAINT %I %s', p.shown, k.conname, pg_get_constraintdef(k.oid, true)) AS statement
          FROM pair p
          JOIN pg_constraint k ON k.conrelid = p.live AND k.contype IN ('p', 'u', 'x', 'f')
         WHERE NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conrelid = p.next AND o.conname = k.conname)
         UNION ALL
        SELECT CASE WHEN i.indisunique THEN 1 ELSE 2 END, c.relname::text, pg_get_indexdef(i.indexrelid, 0, true)
          FROM pair p
          JOIN pg_index i ON i.indrelid = p.live AND i.indisvalid
          JOIN pg_class c ON c.oid = i.indexrelid
         WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
           AND NOT EXISTS (
                   SELECT
                     FROM pg_index o
                     JOIN pg_class oc ON oc.oid = o.indexrelid
                    WHERE o.indrelid = p.next AND oc.relname = c.relname)
         UNION ALL
        SELECT 4, s.stxname::text,
               replace(pg_get_statisticsobjdef(s.oid), format('%I.%I', stage_schema('live'), s.stxname),
                       format('%I.%I', stage_schema('next'), s.stxname))
          FROM pair p
          JOIN pg_statistic_ext s ON s.stxrelid = p.live
         WHERE NOT EXISTS (SELECT FROM pg_statistic_ext o WHERE o.stxrelid = p.next AND o.stxname = s.stxname)
         UNION ALL
        SELECT 5, g.tgname::text,
               pg_get_triggerdef(g.oid, true)
               || CASE g.tgenabled
                      WHEN 'D' THEN format('; ALTER TABLE %s DISABLE TRIGGER %I', p.shown, g.tgname)
                      WHEN 'A' THEN format('; ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', p.shown, g.tgname)
                      WHEN 'R' THEN format('; ALTER TABLE %s ENABLE REPLICA TRIGGER %I', p.shown, g.tgname)
                      ELSE ''
                  END
          FROM pair p
          JOIN pg_trigger g ON g.tgrelid = p.live AND NOT g.tgisinternal
         WHERE NOT EXISTS (SELECT FROM pg_trigger o WHERE o.tgrelid = p.next AND o.tgname = g.tgname)
         UNION ALL
        SELECT 6, y.polname::text,
               format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', y.polname, p.shown,
                      CASE WHEN y.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                      CASE y.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                    WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                      (SELECT string_agg(role_shown(r), ', ') FROM unnest(y.polroles) AS r))
               || coalesce(format(' USING (%s)', pg_get_expr(y.polqual, y.polrelid)), '')
               || coalesce(format(' WITH CHECK (%s)', pg_get_expr(y.polwithcheck, y.polrelid)), '')
          FROM pair p
          JOIN pg_policy y ON y.polrelid = p.live
         WHERE NOT EXISTS (SELECT FROM pg_policy o WHERE o.polrelid = p.next AND o.polname = y.polname)
         UNION ALL
        SELECT 7, 'row level security', format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', p.shown)
          FROM pair p
         WHERE p.relrowsecurity AND NOT p.has_security
         UNION ALL
        SELECT 8, 'forced row level security', format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', p.shown)
          FROM pair p
         WHERE p.relforcerowsecurity AND NOT p.has_forced
         UNION ALL
        SELECT 9, 'replica identity', format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', p.shown, c.relname)
          FROM pair p
          JOIN pg_index i ON i.indrelid = p.live AND i.indisreplident
          JOIN pg_class c ON c.oid = i.indexrelid
         WHERE NOT EXISTS (SELECT FROM pg_index o WHERE o.indrelid = p.next AND o.indisreplident)
      ) AS m
     ORDER BY m.step, m.what;
END;

-- Moves the tables of one stage to where another's stand. The statistics objects do not follow by themselves.
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

-- Gives what is kept about a stage another name.
CREATE FUNCTION move_stage(projection text, stage text, to_stage text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
BEGIN ATOMIC
    UPDATE projection_texts t SET stage = to_stage WHERE t.projection = move_stage.projection AND t.stage = move_stage.stage;
    UPDATE checkpoints c SET stage = to_stage WHERE c.projection = move_stage.projection AND c.stage = move_stage.stage;
    UPDATE parked p SET stage = to_stage WHERE p.projection = move_stage.projection AND p.stage = move_stage.stage;
END;

-- Puts the tables of a stage (next, or previous) in the place of the live ones, which become the previous. Views and
-- functions in SQL that read the live tables read the new ones afterwards. The locks that readers feel are held from
-- LOCK TABLE to the end of the transaction, which should follow at once; the caller bounds the waiting for them.
CREATE FUNCTION swap_tables(projection text, tables text[], stage text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    home   text := current_setting('search_path');
    moves  text[][] := CASE stage
                           WHEN 'next' THEN '{{live,previous},{next,live}}'
                           ELSE '{{live,next},{previous,live},{next,previous}}'
                       END;
    old    oid[];
    remake text[];
    again  text;
    move   text[];
BEGIN
    SELECT array_agg(format('%I.%I', stage_schema('live'), t)::regclass::oid) INTO old FROM unnest(tables) AS t;
    -- With nothing but the system in the path, definitions name every table with its schema.
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT array_agg(DISTINCT
               CASE
                   WHEN d.classid = 'pg_proc'::regclass THEN pg_get_functiondef(d.objid)
                   ELSE format('CREATE OR REPLACE VIEW %s%s AS %s', c.oid::regclass,
                               ' WITH (' || array_to_string(c.reloptions, ', ') || ')', pg_get_viewdef(c.oid))
               END)
      INTO remake
      FROM pg_depend d
      LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
      LEFT JOIN pg_class c ON c.oid = r.ev_class
     WHERE d.refclassid = 'pg_class'::regclass
       AND d.refobjid = ANY (old)
       AND d.deptype = 'n'
       AND (c.relkind = 'v' OR d.classid = 'pg_proc'::regclass);
    PERFORM set_config('search_path', home, true);

    EXECUTE 'LOCK TABLE ' || (SELECT string_agg(o::regclass::text, ', ') FROM unnest(old) AS o)
            || ' IN ACCESS EXCLUSIVE MODE';
    FOREACH move SLICE 1 IN ARRAY moves LOOP
        PERFORM move_tables(tables, move[1], move[2]), move_stage(projection, move[1], move[2]);
    END LOOP;
    FOREACH again IN ARRAY coalesce(remake, '{}') LOOP
        EXECUTE again;
    END LOOP;
END
$$;

-- Drops the tables of a stage that nobody reads, and all that is kept about it.
CREATE FUNCTION drop_stage(projection text, stage text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    name text;
BEGIN
    IF stage = 'live' THEN
        RAISE EXCEPTION 'the live tables of % are read', projection USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR name IN
        SELECT unnest(t.tables)
          FROM projection_texts t
         WHERE t.projection = drop_stage.projection
           AND t.stage = drop_stage.stage
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I.%I', stage_schema(stage), name);
    END LOOP;
    DELETE FROM projection_texts t WHERE t.projection = drop_stage.projection AND t.stage = drop_stage.stage;
    DELETE FROM checkpoints c WHERE c.projection = drop_stage.projection AND c.stage = drop_stage.stage;
    DELETE FROM parked p WHERE p.projection = drop_stage.projection AND p.stage = drop_stage.stage;
END
$$;

SELECT eventstore_own('FUNCTION ' || f)
  FROM unnest(ARRAY[
           'role_shown(oid)', 'swap_obstacles(text[])', 'make_shadows(text[])', 'missing_in_shadows(text[])',
           'move_tables(text[], text, text)', 'move_stage(text, text, text)', 'swap_tables(text, text[], text)',
           'drop_stage(text, text)'
       ]) AS f;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION drop_stage(text, text);
DROP FUNCTION swap_tables(text, text[], text);
DROP FUNCTION move_stage(text, text, text);
DROP FUNCTION move_tables(text[], text, text);
DROP FUNCTION missing_in_shadows(text[]);
DROP FUNCTION make_shadows(text[]);
DROP FUNCTION swap_obstacles(text[]);
DROP FUNCTION role_shown(oid);
