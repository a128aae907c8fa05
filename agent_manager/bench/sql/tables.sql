SELECT c.relname
  FROM pg_class c
 WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s))
   AND c.relkind = 'r'
 ORDER BY c.relname
