SELECT w.append, l.id
  FROM log l
  JOIN wanted w ON w.id = l.id
 WHERE NOT l.intact
    OR (l.tenant, l.conversation) <> (w.tenant, w.conversation)
