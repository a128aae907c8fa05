SELECT r.role, r.conversations, r.messages, r.characters, r.bytes, r.parts, r.parts_bytes
  FROM statistics_by_role(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS r
