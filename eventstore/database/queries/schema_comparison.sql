-- name: catalog
-- The schema of the store, as facts that can be compared between databases: a kind, a name and a detail. The search path
-- begins with the schema. Definitions that differ between server versions are left out; "<owner>" stands for the role that
-- owns the log. Rights are those of the store's roles and of PUBLIC.
WITH schema AS (
    SELECT n.oid, n.nspname
      FROM pg_namespace n
     WHERE n.nspname = current_schema()
), log AS (
    SELECT c.relowner AS owner, o.rolname AS owner_name
      FROM schema s
      JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = 'events'
      JOIN pg_roles o ON o.oid = c.relowner
), relation AS (
    SELECT c.oid, c.relname, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity,
           CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
      FROM schema s
      JOIN pg_class c ON c.relnamespace = s.oid AND c.relkind IN ('r', 'p', 'v', 'S')
), routine AS (
    SELECT p.oid, p.oid::regprocedure::text AS name, p.proowner, p.proacl, p.prosecdef, p.proconfig
      FROM schema s
      JOIN pg_proc p ON p.pronamespace = s.oid
), role AS (
    SELECT r.*
      FROM pg_roles r
     WHERE r.rolname IN ('eventstore_owner', 'eventstore_migrator', 'eventstore_app', 'eventstore_writer',
                         'eventstore_reader', 'eventstore_auditor', 'eventstore_projector', 'eventstore_search',
                         'eventstore_eraser')
), object AS (
    SELECT r.kind, r.relname::text AS name, r.relowner AS owner,
           coalesce(r.relacl, acldefault(CASE r.kind WHEN 'sequence' THEN 's'::"char" ELSE 'r' END, r.relowner)) AS acl
      FROM relation r
     UNION ALL
    SELECT 'column', format('%s.%s', r.relname, a.attname), r.relowner, a.attacl
      FROM relation r
      JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attacl IS NOT NULL
     UNION ALL
    SELECT 'function', f.name, f.proowner, coalesce(f.proacl, acldefault('f', f.proowner))
      FROM routine f
     UNION ALL
    SELECT 'type', t.typname::text, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
      FROM schema s
      JOIN pg_type t ON t.typnamespace = s.oid
      JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
     UNION ALL
    SELECT 'schema', t.stage, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
      FROM schema s
     CROSS JOIN (VALUES ('live', ''), ('next', '_next'), ('previous', '_previous')) AS t (stage, ending)
      JOIN pg_namespace n
        ON n.nspname = CASE t.stage WHEN 'live' THEN s.nspname ELSE left(s.nspname, 54) || t.ending END
)
SELECT o.kind, o.name, ''::text AS detail
  FROM object o
 WHERE o.kind <> 'column'
 UNION ALL
SELECT 'owner of', format('%s %s', o.kind, o.name), coalesce(r.rolname::text, '<login>')
  FROM object o
  LEFT JOIN role r ON r.oid = o.owner
 WHERE o.kind NOT IN ('column', 'schema')
 UNION ALL
SELECT 'rights on', format('%s %s', o.kind, o.name),
       coalesce((SELECT string_agg(format('%s=%s', g.grantee, g.privileges), ', ' ORDER BY g.grantee)
                   FROM (SELECT coalesce(r.rolname, 'PUBLIC')::text COLLATE "C" AS grantee,
                                string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type COLLATE "C") AS privileges
                           FROM aclexplode(o.acl) AS a
                           LEFT JOIN role r ON r.oid = a.grantee
                          WHERE (a.grantee <> o.owner OR o.kind = 'schema')
                            AND (a.grantee = 0 OR r.oid IS NOT NULL)
                            -- The rights of PUBLIC on a schema are the user's choice.
                            AND (o.kind <> 'schema' OR a.grantee <> 0)
                          GROUP BY 1) AS g), '')
  FROM object o
 UNION ALL
SELECT 'security of function', f.name,
       concat_ws(', ', CASE WHEN f.prosecdef THEN 'definer' ELSE 'invoker' END,
                 (SELECT replace(c, s.nspname, '<schema>')
                    FROM unnest(f.proconfig) AS c
                   WHERE c LIKE 'search_path=%'))
  FROM routine f
 CROSS JOIN schema s
 UNION ALL
SELECT 'constraint', format('%s on %s', k.conname, r.relname), pg_get_constraintdef(k.oid, true)
  FROM relation r
  JOIN pg_constraint k ON k.conrelid = r.oid AND k.contype IN ('p', 'u', 'x')
 UNION ALL
SELECT 'unique index', format('%s on %s', c.relname, r.relname), CASE WHEN i.indisvalid THEN 'valid' ELSE 'invalid' END
  FROM relation r
  JOIN pg_index i ON i.indrelid = r.oid AND i.indisunique
  JOIN pg_class c ON c.oid = i.indexrelid
 UNION ALL
SELECT 'trigger', format('%s on %s', g.tgname, r.relname),
       CASE g.tgenabled WHEN 'A' THEN 'enabled always' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'on replicas' ELSE 'enabled' END
       || ' ' || replace(pg_get_triggerdef(g.oid, true), format('%I.', s.nspname), '')
  FROM relation r
  JOIN pg_trigger g ON g.tgrelid = r.oid AND NOT g.tgisinternal
 CROSS JOIN schema s
 UNION ALL
SELECT 'row-level security on', r.relname::text, CASE WHEN r.relforcerowsecurity THEN 'forced' ELSE 'enabled' END
  FROM relation r
 WHERE r.relrowsecurity
 UNION ALL
SELECT 'policy', format('%s on %s', y.polname, r.relname),
       replace(
           format('AS %s FOR %s TO %s', CASE WHEN y.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                  CASE y.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                  (SELECT string_agg(CASE p WHEN l.owner THEN '<owner>' WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(p)) END,
                                     ', ' ORDER BY pg_get_userbyid(p))
                     FROM unnest(y.polroles) AS p))
           || coalesce(' USING (' || pg_get_expr(y.polqual, y.polrelid, true) || ')', '')
           || coalesce(' WITH CHECK (' || pg_get_expr(y.polwithcheck, y.polrelid, true) || ')', ''),
           quote_literal(l.owner_name), '''<owner>''')
  FROM relation r
  JOIN pg_policy y ON y.polrelid = r.oid
 CROSS JOIN log l
 UNION ALL
-- The one function that names the owner.
SELECT 'definition of', f.name,
       replace(replace(pg_get_functiondef(f.oid), format('%I.', s.nspname), ''), quote_literal(l.owner_name), '''<owner>''')
  FROM routine f
 CROSS JOIN schema s
 CROSS JOIN log l
 WHERE f.name = 'may_set_tenant()'
 UNION ALL
-- The functions by which the log is verified: another text could hide that an event was changed.
SELECT 'text of', f.name,
       encode(sha256(convert_to(replace(pg_get_functiondef(f.oid), format('%I.', s.nspname), ''), 'UTF8')), 'hex')
  FROM routine f
 CROSS JOIN schema s
 WHERE split_part(f.name, '(', 1) IN ('event_digest', 'unreceipted_erasure', 'erased_content', 'erased_metadata',
                                      'json_member_is_uuid')
 UNION ALL
SELECT 'role', r.rolname::text,
       concat_ws(' ', CASE WHEN NOT r.rolinherit THEN 'NOINHERIT' END, CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
                 CASE WHEN r.rolcanlogin THEN 'LOGIN' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END)
  FROM role r
 UNION ALL
SELECT 'membership', format('%s in %s', m.rolname, r.rolname),
       CASE WHEN pg_has_role(m.oid, r.oid, 'USAGE') THEN 'inherits' ELSE 'by SET ROLE' END
  FROM role r
  JOIN role m ON m.oid <> r.oid AND pg_has_role(m.oid, r.oid, 'MEMBER')

-- name: exposed
-- Return whether the current role is exempt from row-level security, and the tables under it that the role may read.
SELECT r.rolsuper OR r.rolbypassrls,
       ARRAY(
           SELECT c.relname::text
             FROM pg_class c
            WHERE c.relnamespace = current_schema()::regnamespace
              AND c.relkind = 'r'
              AND c.relname = ANY (%(tables)s)
              AND has_table_privilege(c.oid, 'SELECT')
            ORDER BY c.relname
       )
  FROM pg_roles r
 WHERE r.rolname = current_user
