-- Return what the tables of the stage next lack of the live ones, with the statements that add it. Policies for
-- SELECT do not check writes, so they are added as well. The keys are created after the other indexes, unless the tables
-- must have them before they are filled: see conversations.
CREATE FUNCTION missing_in_staging(tables text[]) RETURNS TABLE (what text, statement text, is_key boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH pair AS (
        SELECT t.name, format('%I.%I', stage_schema('next'), t.name) AS shown, l.oid AS live, n.oid AS next,
               l.relrowsecurity, l.relforcerowsecurity, n.relrowsecurity AS has_security,
               n.relforcerowsecurity AS has_forced
          FROM unnest(missing_in_staging.tables) AS t (name)
          JOIN pg_class l ON l.relname = t.name AND l.relnamespace = stage_schema('live')::regnamespace
          JOIN pg_class n ON n.relname = t.name AND n.relnamespace = stage_schema('next')::regnamespace
    )
    SELECT m.what, m.statement, m.step = 2
      FROM (
        SELECT CASE k.contype WHEN 'f' THEN 3 ELSE 2 END AS step, k.conname::text AS what,
               format('ALTER TABLE %s ADD CONSTRAINT %I %s', p.shown, k.conname, pg_get_constraintdef(k.oid, true)) AS statement
          FROM pair p
          JOIN pg_constraint k ON k.conrelid = p.live AND k.contype IN ('p', 'u', 'x', 'f')
         WHERE NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conrelid = p.next AND o.conname = k.conname)
         UNION ALL
        SELECT CASE WHEN i.indisunique THEN 2 ELSE 1 END, c.relname::text, pg_get_indexdef(i.indexrelid, 0, true)
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
                      (SELECT string_agg(grantee_name(r), ', ') FROM unnest(y.polroles) AS r))
               || coalesce(' USING (' || pg_get_expr(y.polqual, y.polrelid) || ')', '')
               || coalesce(' WITH CHECK (' || pg_get_expr(y.polwithcheck, y.polrelid) || ')', '')
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

SELECT eventstore_set_owner('FUNCTION missing_in_staging');
REVOKE ALL ON FUNCTION missing_in_staging FROM PUBLIC;
