SELECT l.share
  FROM checkpoints l
  JOIN checkpoints n
    ON n.projection = l.projection
   AND n.share = l.share
   AND n.stage = %(stage)s
 WHERE l.projection = %(projection)s
   AND l.stage = 'live'
   AND n.position < l.position
