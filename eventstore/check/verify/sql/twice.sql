SELECT w.append, l.id
  FROM log l
  LEFT JOIN wanted w ON w.id = l.id
 GROUP BY l.id
HAVING count(DISTINCT l.rowid) > 1
