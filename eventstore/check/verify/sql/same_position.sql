SELECT NULL, min(l.id), max(l.id)
  FROM log l
 GROUP BY l.position
HAVING count(DISTINCT l.id) > 1
