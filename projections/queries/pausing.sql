-- name: pause
-- Pause projections under the locks of their checkpoints, so that no batch that has begun ends later.
WITH locked AS MATERIALIZED (
    SELECT c.partition
      FROM checkpoints c
     WHERE c.projection = ANY (%(projections)s)
       AND c.stage = 'live'
     ORDER BY c.projection, c.partition
       FOR UPDATE
)
INSERT INTO paused_projections (projection)
SELECT p.name
  FROM unnest(%(projections)s::text[]) AS p (name)
 CROSS JOIN (SELECT count(*) FROM locked) AS l
ON CONFLICT (projection) DO NOTHING
RETURNING projection

-- name: resume
DELETE FROM paused_projections p
 WHERE p.projection = ANY (%(projections)s)
RETURNING p.projection

-- name: paused
SELECT p.projection, p.paused_at
  FROM paused_projections p
