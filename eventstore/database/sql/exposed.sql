-- Whether row-level security passes the current role over, and the tables under it that the role may read.
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
