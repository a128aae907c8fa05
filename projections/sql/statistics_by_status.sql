SELECT s.kind, s.status, s.number
  FROM statistics_by_status(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS s
