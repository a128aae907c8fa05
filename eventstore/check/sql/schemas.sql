SELECT n.nspname
  FROM pg_namespace n
 WHERE n.nspname = %(name)s
    OR starts_with(n.nspname, %(name)s || '_')
