SELECT coalesce(min(position), 0)
  FROM checkpoints
 WHERE projection = ANY (%(projections)s)
   AND stage = 'live'
   AND share = ANY (%(shares)s)
