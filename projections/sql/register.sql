-- Makes the checkpoints of a projection that the database does not know yet, and returns the text they belong to.
WITH made AS (
    INSERT INTO checkpoints (projection, share, position, source)
    SELECT %(projection)s, s.share, 0, %(source)s
      FROM generate_series(0, %(shares)s - 1) AS s (share)
    ON CONFLICT (projection, share) DO NOTHING
    RETURNING source
)
SELECT m.source FROM made m
 UNION
SELECT c.source FROM checkpoints c WHERE c.projection = %(projection)s
