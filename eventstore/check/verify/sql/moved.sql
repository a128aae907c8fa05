SELECT w.append, w.id
  FROM wanted w
  JOIN appends a ON a.number = w.append
  JOIN log l ON l.id = w.id
 WHERE a.fate = 'acknowledged'
   AND (l.position, l.version) IS NOT (w.position, w.version)
