UPDATE checkpoints
   SET position = %(upper)s,
       updated_at = clock_timestamp()
 WHERE projection = %(projection)s
   AND stage = %(stage)s
   AND share = ANY (%(shares)s)
   AND position < %(upper)s
