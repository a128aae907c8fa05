SELECT max(n.position), count(*)
  FROM (SELECT e.position
          FROM events e
         WHERE e.position > %(lower)s
           AND e.position <= %(target)s
         ORDER BY e.position
         LIMIT %(size)s) AS n
