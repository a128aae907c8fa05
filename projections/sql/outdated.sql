-- Projections whose live tables are made by another text. Who took a rebuild back did not want the newer text: then it
-- stands with the previous tables, and is left there.
SELECT g.name
  FROM unnest(%(projections)s::text[], %(sources)s::text[]) AS g (name, source)
  JOIN projection_texts t
    ON t.projection = g.name
   AND t.stage = 'live'
   AND t.source <> g.source
 WHERE NOT EXISTS (
           SELECT
             FROM projection_texts p
            WHERE p.projection = g.name
              AND p.stage = 'previous'
              AND p.source = g.source
       )
