SELECT NULL, l.id
  FROM log l
 WHERE NOT EXISTS (SELECT 1 FROM wanted w WHERE w.id = l.id)
