UPDATE checkpoints
   SET position = %(upper)s,
       updated_at = clock_timestamp()
 WHERE projection = %(projection)s
   AND position < %(upper)s
