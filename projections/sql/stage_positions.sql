SELECT l.position, n.position
  FROM checkpoints l
  JOIN checkpoints n
    ON n.projection = l.projection
   AND n.share = l.share
   AND n.stage = 'next'
 WHERE l.projection = %(projection)s
   AND l.stage = 'live'
