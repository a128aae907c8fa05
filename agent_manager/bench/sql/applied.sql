SELECT coalesce(min(c.position), 0)
  FROM checkpoints c
 WHERE c.projection = ANY (%(projections)s)
   AND c.stage = 'live'
