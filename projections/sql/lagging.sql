-- The shares in which a projection has not applied the positions that were written to their conversations, and the highest
-- of these. A conversation that is null stands for one of every share.
SELECT s.share, max(w.position)
  FROM unnest(%(conversations)s::uuid[], %(positions)s::bigint[]) AS w (conversation_id, position)
  JOIN generate_series(0, 15) AS s (share)
    ON w.conversation_id IS NULL OR s.share = share_of(w.conversation_id)
 CROSS JOIN unnest(%(projections)s::text[]) AS p (name)
  LEFT JOIN checkpoints c
    ON c.projection = p.name
   AND c.stage = 'live'
   AND c.share = s.share
 WHERE coalesce(c.position, 0) < w.position
 GROUP BY s.share
 ORDER BY s.share
