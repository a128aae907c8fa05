-- name: progress
-- How far the live tables of each projection are, their last batch, the definition that made them, and whether those that
-- a rebuild has replaced are kept.
SELECT c.projection, min(c.position), max(c.updated_at),
       (array_agg(c.batch_events ORDER BY c.updated_at DESC))[1],
       (array_agg(c.batch_seconds ORDER BY c.updated_at DESC))[1]::float8,
       min(d.definition_hash),
       EXISTS (SELECT FROM projection_definitions p WHERE p.projection = c.projection AND p.stage = 'previous')
  FROM checkpoints c
  JOIN projection_definitions d
    ON d.projection = c.projection
   AND d.stage = c.stage
 WHERE c.stage = 'live'
 GROUP BY c.projection
