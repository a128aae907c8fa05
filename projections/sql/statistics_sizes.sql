SELECT s.what, s.number, s.characters, s.bytes, s.average_bytes, s.largest_bytes
  FROM statistics_sizes(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS s
