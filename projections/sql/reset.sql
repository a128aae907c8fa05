-- In the transaction that empties the tables. Locks the checkpoints in the order in which begin_batch does, so that a
-- worker in the middle of a batch is waited for, and nobody waits for the other.
WITH locked AS MATERIALIZED (
    SELECT c.projection, c.share
      FROM checkpoints c
     WHERE c.projection = %(projection)s
     ORDER BY c.share
       FOR UPDATE
)
UPDATE checkpoints c
   SET position = 0,
       source = %(source)s,
       updated_at = clock_timestamp()
  FROM locked l
 WHERE c.projection = l.projection
   AND c.share = l.share
