SELECT c.projection,
       min(c.position) AS position,
       max(c.updated_at) AS updated_at,
       min(t.source) AS source,
       (SELECT count(*) FROM events e WHERE e.position > min(c.position)) AS lag_events,
       coalesce((SELECT extract(epoch FROM greatest(clock_timestamp() - e.timestamp, '0 s'))
                   FROM events e
                  WHERE e.position > min(c.position)
                  ORDER BY e.position
                  LIMIT 1), 0)::float8 AS lag_seconds,
       (SELECT count(*) FROM parked p WHERE p.projection = c.projection AND p.stage = 'live') AS parked
  FROM checkpoints c
  JOIN projection_texts t
    ON t.projection = c.projection
   AND t.stage = c.stage
 WHERE c.stage = 'live'
 GROUP BY c.projection
 ORDER BY c.projection
