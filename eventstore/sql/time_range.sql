-- The lowest and the highest position in a range of time; OFFSET 0 keeps the planner from looking for them by position.
SELECT min(e.position), max(e.position)
  FROM (SELECT e.position
          FROM events e
         WHERE e.timestamp >= %(since)s::timestamptz
           AND e.timestamp < %(until)s::timestamptz
        OFFSET 0) AS e
