SELECT b.lower_position, b.upper_position, b.events
  FROM begin_batch(%(projection)s, %(stage)s, %(source)s, %(shares)s, %(size)s, %(until)s) AS b
 WHERE b.events > 0
