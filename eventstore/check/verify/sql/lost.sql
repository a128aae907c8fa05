SELECT w.append, w.id
  FROM wanted w
  JOIN appends a ON a.number = w.append
 WHERE a.fate = 'acknowledged'
   AND NOT EXISTS (SELECT 1 FROM log l WHERE l.id = w.id)
