-- In the transaction that empties the tables; a worker in the middle of a batch is waited for.
UPDATE checkpoints
   SET position = 0,
       source = %(source)s,
       updated_at = clock_timestamp()
 WHERE projection = %(projection)s
