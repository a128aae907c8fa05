-- A projection that nobody has made known yet has applied nothing.
SELECT CASE
           WHEN count(DISTINCT projection) = (SELECT count(DISTINCT p.name) FROM unnest(%(projections)s::text[]) AS p (name))
               THEN coalesce(min(position), 0)
           ELSE 0
       END
  FROM checkpoints
 WHERE projection = ANY (%(projections)s)
   AND stage = 'live'
   AND share = ANY (%(shares)s)
