SELECT d.day, d.conversations, d.active_conversations, d.messages, d.tasks, d.events, d.characters, d.bytes
  FROM statistics_by_day(%(tenant)s, %(since)s, %(until)s, %(actor)s, %(zone)s) AS d
