SELECT t.name
  FROM unnest(%(tables)s::text[]) AS t (name)
 WHERE NOT EXISTS (
           SELECT
             FROM pg_class c
            WHERE c.relname = t.name
              AND c.relnamespace = stage_schema('live')::regnamespace
       )
