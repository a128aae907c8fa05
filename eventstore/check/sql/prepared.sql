-- Left behind by a writer that was killed or cut off between the phases.
SELECT p.gid, quote_ident(p.owner::text)
  FROM pg_prepared_xacts p
 WHERE p.database = current_database()
   AND starts_with(p.gid, %(prefix)s)
   AND p.prepared < clock_timestamp() - make_interval(secs => %(seconds)s)
