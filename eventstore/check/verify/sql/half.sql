-- What was acknowledged and is lost is said elsewhere.
SELECT w.append, max(l.id), max(w.id) FILTER (WHERE l.id IS NULL)
  FROM wanted w
  JOIN appends a ON a.number = w.append
  LEFT JOIN log l ON l.id = w.id
 WHERE a.fate = 'unknown'
 GROUP BY w.append
HAVING count(l.id) > 0 AND count(*) > count(l.id)
