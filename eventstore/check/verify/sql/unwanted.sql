SELECT w.append, max(w.id)
  FROM wanted w
  JOIN appends a ON a.number = w.append
  JOIN log l ON l.id = w.id
 WHERE a.fate IN ('refused', 'aborted')
 GROUP BY w.append
